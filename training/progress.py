"""How a long run tells where it is."""

from collections.abc import Callable

from msgspec import Struct


class Progress(Struct, frozen=True):
    """How a long run tells where it is: a new stage with its number of steps, and steps done."""

    stage: Callable[[str, int], None]
    advance: Callable[[int], None]
