"""Progress display on stderr, so that results on stdout can be piped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

stderr = Console(stderr=True)
_REASONS_SHOWN = 3

if TYPE_CHECKING:
    from training.data.readers import TransactionFile


@contextmanager
def rejects_shown(source: "TransactionFile", rejects: Path | None = None) -> Iterator[None]:
    """Print at the end of the block, also after an error, how many rows were rejected and the most frequent reasons."""
    try:
        yield
    finally:
        if source.rejected:
            where = f"; all are in {rejects}" if rejects else ""
            stderr.print(f"[bold yellow]{source.rejected:,} of {source.read:,} rows rejected[/]{where}:", highlight=False)
            for reason, count in source.reasons.most_common(_REASONS_SHOWN):
                stderr.print(f"  {count:,}: {reason}", highlight=False, markup=False)


class Stages:
    """Progress of a long run, with one line per stage."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, steps: int = 0) -> None:
        """Begin a stage with a number of steps, or 0 if the number is not known."""
        self._finish()
        self._task = self._bars.add_task(name, total=steps or None)

    def advance(self, steps: int) -> None:
        """Mark a number of steps of the current stage as done."""
        if self._task is not None:
            self._bars.advance(self._task, steps)

    def _finish(self) -> None:
        if self._task is not None:
            done = self._bars.tasks[self._task].completed
            self._bars.update(self._task, total=done or 1, completed=done or 1)

    def close(self) -> None:
        """Mark the last stage as done."""
        self._finish()


@contextmanager
def stages() -> Iterator[Stages]:
    """Show the stages while the block runs: as bars on a terminal, otherwise as one line per stage."""
    if not stderr.is_terminal:
        yield _Lines()
        return
    columns = (SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=stderr) as bars:
        shown = Stages(bars)
        yield shown
        shown.close()


class _Lines(Stages):
    def __init__(self) -> None:
        pass

    def stage(self, name: str, steps: int = 0) -> None:
        stderr.print(f"{name} …", highlight=False)

    def advance(self, steps: int) -> None:
        pass
