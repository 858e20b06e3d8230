"""The bounds of a message's fields, as its type declares them, for readers that check columns instead of messages."""

from typing import Any

import msgspec
from msgspec import Struct, inspect

# Python's $ also matches before a final newline, so patterns end in this lookahead. RE2, which Arrow uses, has no lookahead;
# its $ matches only at the end of the text, so ``_bounds`` removes the lookahead.
_NOT_BEFORE_A_NEWLINE = r"(?!\n)"


class Bounds(Struct, frozen=True):
    """
    Bounds of one field; the defaults bound nothing.

    ``shortest`` and ``longest`` are lengths in characters. ``smallest`` and ``largest`` are values. ``pattern`` is a regular
    expression (RE2).
    """

    shortest: int = 0
    longest: int = 2**31 - 1
    smallest: float = float("-inf")
    largest: float = float("inf")
    pattern: str = ""


def bounds_of(message: type[Struct]) -> dict[str, Bounds]:
    """Return the bounds of each field of a message."""
    info = inspect.type_info(message)
    assert isinstance(info, inspect.StructType)
    return {field.name: _bounds(field.type) for field in info.fields}


def _bounds(kind: inspect.Type) -> Bounds:
    pattern = ""
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            pattern = (kind.extra_json_schema or {}).get("pattern", pattern)
            kind = kind.type
        else:
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    given: dict[str, Any] = {"pattern": pattern.removesuffix(_NOT_BEFORE_A_NEWLINE)}
    for name, own in (("min_length", "shortest"), ("max_length", "longest"), ("ge", "smallest"), ("le", "largest")):
        if (value := getattr(kind, name, None)) is not None:
            given[own] = value
    return msgspec.convert(given, Bounds)
