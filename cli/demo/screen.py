"""How a running demo is shown: a live screen on a terminal, a line every few seconds elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

from cli.demo.results import ExplainedAlert, Results
from cli.progress import stderr
from core.messages import Outcome, Side
from core.money import money

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

_LINE_SECONDS = 5.0
_OTHER_LINES = 14  # lines of the screen for everything except alerts, with some spare for text that wraps


class Shown(NamedTuple):
    """A snapshot of the run. ``simulated_time`` is epoch ms, None before the first transaction; ``elapsed`` is in seconds."""

    results: Results
    produced: int
    simulated_time: int | None
    address: str
    elapsed: float
    stopping: bool


@contextmanager
def live_view(headless: bool) -> Iterator[Callable[[Shown], None]]:
    """Yield the function that shows a snapshot of the run."""
    if headless or not stderr.is_terminal:
        yield _Lines()
        return
    from rich.live import Live

    with Live(console=stderr, refresh_per_second=4) as live:
        yield lambda shown: live.update(screen(shown))


class _Lines:
    """Prints a line when the first alert is explained, and one every few seconds."""

    def __init__(self) -> None:
        self._next = _LINE_SECONDS
        self._explained = False

    def __call__(self, shown: Shown) -> None:
        results = shown.results
        if results.explained and not self._explained:
            self._explained = True
            stderr.print("the first alert is explained: open the console", highlight=False)
        if shown.elapsed >= self._next:
            self._next = shown.elapsed + _LINE_SECONDS
            counts = f"{results.decided:,} decided, {len(results.flagged):,} alerts, {len(results.explained):,} explained"
            stderr.print(f"{counts} …", highlight=False)


def screen(shown: Shown) -> "RenderableType":
    """Return the live screen: totals, the latest alerts, and what Ctrl-C does."""
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    footer = (
        Text("stopping: waiting for the records that are still in the pipeline …")
        if shown.stopping
        else Text.assemble(
            "Work the queue at ", (shown.address, "bold cyan"), " · Ctrl-C stops and removes everything that the demo wrote"
        )
    )
    return Group(
        footer,
        Panel(_totals(shown), title="whyflag", title_align="left"),
        Panel(
            _alerts(list(shown.results.latest)[: max(stderr.height - _OTHER_LINES, 1)]), title="latest alerts", title_align="left"
        ),
    )


def _totals(shown: Shown) -> "Table":
    from rich.table import Table

    results = shown.results
    time = (
        "not started"
        if shown.simulated_time is None
        else f"{datetime.fromtimestamp(shown.simulated_time / 1000, UTC):%Y-%m-%d %H:%M}"
    )
    p50, p99 = results.latency_quantile(0.5), results.latency_quantile(0.99)
    latency = "no decision yet" if p50 is None else f"p50 {p50} ms, p99 {p99} ms"
    outcomes = results.outcomes
    rate, approved, explained = shown.produced / max(shown.elapsed, 0.1), outcomes[Outcome.APPROVE], len(results.explained)
    table = Table.grid(padding=(0, 3))
    table.add_row("transactions", f"{shown.produced:,}", "approved", f"{approved:,}", "simulated time", time)
    table.add_row(
        "per second", f"{rate:,.0f}", "[yellow]review[/]", f"{outcomes[Outcome.REVIEW]:,}", "produce to decision", latency
    )
    table.add_row(
        "dead letters", f"{results.dead_lettered:,} (intended)", "[red]declined[/]", f"{outcomes[Outcome.DECLINE]:,}",
        "alerts explained", f"{explained} of {len(results.flagged)}",
    )  # fmt: skip
    return table


def _alerts(latest: list[ExplainedAlert]) -> "RenderableType":
    from rich.table import Table
    from rich.text import Text

    if not latest:
        return Text("none yet", "dim")
    table = Table(expand=True, box=None, header_style="dim")
    table.add_column("outcome", no_wrap=True)
    table.add_column("probability", justify="right", no_wrap=True)
    table.add_column("amount", justify="right", no_wrap=True)
    table.add_column("top reason", no_wrap=True, overflow="ellipsis")
    for alert in latest:
        decision = alert.decision
        table.add_row(
            Text(decision.outcome, "red" if decision.outcome is Outcome.DECLINE else "yellow"),
            "unknown" if decision.probability is None else f"{decision.probability * 100:.1f} %",
            money(decision.amount, decision.currency),
            _top_reason(alert),
        )
    return table


def _top_reason(alert: ExplainedAlert) -> str:
    from explain.words import ENGLISH, writer

    strongest = next((fact for fact in alert.explanation.facts if fact.feature and fact.side is Side.FRAUD), None)
    return writer(ENGLISH).sentence(strongest) if strongest else ", ".join(alert.decision.reason_codes)
