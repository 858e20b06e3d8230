"""Money in integer minor units of a currency, and its display format."""

from typing import Final

# ISO 4217: currencies by their number of decimal places, for those that do not have two
CURRENCIES_BY_DECIMALS: Final = {
    0: frozenset(
        {"BIF", "CLP", "DJF", "GNF", "ISK", "JPY", "KMF", "KRW", "PYG", "RWF", "UGX", "UYI", "VND", "VUV", "XAF", "XOF", "XPF"}
    ),
    3: frozenset({"BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"}),
}
_EXPONENTS: Final = {currency: decimals for decimals, names in CURRENCIES_BY_DECIMALS.items() for currency in names}


def exponent(currency: str) -> int:
    """Return the number of decimal places of a currency."""
    return _EXPONENTS.get(currency, 2)


def minor_per_major(currency: str) -> int:
    """Return the number of minor units in a major unit: 100 for EUR, 1 for JPY, 1000 for KWD."""
    return int(10 ** exponent(currency))


def money(minor: float, currency: str) -> str:
    """Format an amount in minor units, such as ``"EUR 1,234.50"`` or ``"JPY 1,234"``."""
    digits = exponent(currency)
    return f"{currency} {minor / 10**digits:,.{digits}f}"
