"""How a long run reports its progress."""

from collections.abc import Callable
from typing import Protocol

Advance = Callable[[int], None]  # counts steps of the current stage as done


class Progress(Protocol):
    """Receives the progress of a long run."""

    def stage(self, name: str, steps: int = 0) -> None:
        """Begin a stage of ``steps`` steps; 0 where their number is not known."""

    def advance(self, steps: int) -> None:
        """Count ``steps`` steps of the current stage as done."""


class NoProgress:
    """Shows nothing."""

    def stage(self, name: str, steps: int = 0) -> None:
        """Ignore the stage."""

    def advance(self, steps: int) -> None:
        """Ignore the steps."""
