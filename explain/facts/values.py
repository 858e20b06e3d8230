"""Short constructors for typed values."""

from core.messages import Unit, Value


def count(number: float) -> Value:
    """Return a count."""
    return Value(Unit.COUNT, number)


def share(number: float) -> Value:
    """Return a share or probability in [0, 1]."""
    return Value(Unit.SHARE, number)


def money(minor: float, currency: str) -> Value:
    """Return an amount in minor units of a currency."""
    return Value(Unit.MONEY, minor, currency=currency)


def instant(time: int) -> Value:
    """Return a point in time, given in epoch ms."""
    return Value(Unit.INSTANT, time)


def seconds(number: float) -> Value:
    """Return a length of time in seconds."""
    return Value(Unit.SECONDS, number)


def code(word: str) -> Value:
    """Return a code that every language catalogue translates, such as a channel. Spaces and underscores become hyphens."""
    return Value(Unit.CODE, text=word.replace(" ", "-").replace("_", "-"))


def text(words: str) -> Value:
    """Return a text that is written verbatim."""
    return Value(Unit.TEXT, text=words)


def country(alpha_2: str) -> Value:
    """Return a country by its ISO 3166-1 code."""
    return Value(Unit.COUNTRY, text=alpha_2)


def date(time: int) -> Value:
    """Return a date without a time of day, given in epoch ms."""
    return Value(Unit.DATE, time)
