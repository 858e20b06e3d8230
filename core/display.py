"""Make untrusted text safe to display, without characters that hide or reorder other characters."""

import unicodedata
from typing import Final

SHOWN: Final = 60  # maximum number of characters of a name to show
_INVISIBLE: Final = frozenset({"Cf", "Cc", "Co", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """Return a text without characters that hide or reorder others; each run of white space becomes one space."""
    kept = (" " if one in "\t\n\r\v\f" else "" if unicodedata.category(one) in _INVISIBLE else one for one in text)
    return " ".join("".join(kept).split())


def quoted(text: str | None, longest: int = SHOWN) -> str:
    """
    Return a text for display in quotation marks. The text is cleaned by ``visible`` and cut to ``longest`` characters. The
    caller must escape it.
    """
    whole = visible(text or "")
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"
