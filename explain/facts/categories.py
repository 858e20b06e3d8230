"""Names of merchant categories (ISO 18245)."""

from functools import cache
from pathlib import Path

_FILE = Path(__file__).with_name("categories.csv")
_RANGES = ((3000, 3299, "airline"), (3300, 3499, "car rental"), (3500, 3999, "hotel"))


def category_name(mcc: str | None) -> str:
    """Return the name of a four-digit category code: "category 1234" if the code is unknown, "no category" for None."""
    if mcc is None:
        return "no category"
    if name := _names().get(mcc):
        return name
    return next((name for first, last, name in _RANGES if mcc.isdigit() and first <= int(mcc) <= last), f"category {mcc}")


@cache
def _names() -> dict[str, str]:
    lines = _FILE.read_text(encoding="utf-8").splitlines()
    return dict(line.split(",", 1) for line in lines[1:])
