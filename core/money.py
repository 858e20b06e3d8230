"""Money: integer minor units of a currency, and how people read them."""

from typing import Final

# ISO 4217: digits behind the decimal point, where they are not two
_EXPONENTS: Final = dict.fromkeys(
    ["BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"], 0
) | dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3)


def exponent(currency: str) -> int:
    """Digits behind the decimal point."""
    return _EXPONENTS.get(currency, 2)


def minor_per_major(currency: str) -> int:
    """Minor units in a major unit: 100 for EUR, 1 for JPY, 1000 for KWD."""
    return int(10 ** exponent(currency))


def money(minor: float, currency: str) -> str:
    """``"EUR 1,234.50"`` or ``"JPY 1,234"`` from minor units."""
    digits = exponent(currency)
    return f"{currency} {minor / 10**digits:,.{digits}f}"
