"""Texts of others, made fit to be shown: nothing in them hides or turns other characters."""

import unicodedata
from typing import Final

SHOWN: Final = 60  # characters of a name that are shown
_INVISIBLE: Final = frozenset({"Cf", "Cc", "Co", "Cs", "Zl", "Zp"})


def visible(text: str) -> str:
    """Return a text without characters that hide or turn others, its white space in single blanks."""
    kept = (" " if one in "\t\n\r\v\f" else "" if unicodedata.category(one) in _INVISIBLE else one for one in text)
    return " ".join("".join(kept).split())


def quoted(text: str | None, longest: int = SHOWN) -> str:
    """Return a text as it may be shown between quotation marks: visible, and cut. Escaping is the page's task."""
    whole = visible(text or "")
    return whole if len(whole) <= longest else f"{whole[: longest - 1]}…"
