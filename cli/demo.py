"""``whyflag demo``: the whole pipeline on this machine, with nothing else installed."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.progress import stderr
from core.errors import WhyflagError
from core.money import money

if TYPE_CHECKING:
    from rich.console import RenderableType

    from core.messages import Decision, Explanation
    from core.settings import Settings

HISTORY_DAYS, LIVE_DAYS, A_DAY = 60, 60, 2_000  # transactions a simulated day
BUDGET = "20/day"
_POISON_EVERY = 300  # one undecodable record after so many: it must become a dead letter and stop nothing
_BEHIND_AT_MOST = 4_000  # the embedded broker drops what nobody has read in time
_READY_SECONDS, _DRAIN_SECONDS = 90, 60
_LIBC = ctypes.CDLL(None)


@click.command()
@click.option("--headless", is_flag=True, help="No live view.")
@click.option("--duration", type=click.FloatRange(1), default=None, help="Seconds of streaming. [default: until Ctrl-C]")
@click.option("--rate", type=click.FloatRange(1, 2_000), default=80.0, show_default=True, help="Transactions a second.")
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
def command(headless: bool, duration: float | None, rate: float, as_json: bool, seed: int) -> None:
    """
    Simulate, train, and watch the whole pipeline run on an embedded broker.

    Exits with 1 unless every transaction was decided or is in the dead letters, and every alert was explained.
    """
    with tempfile.TemporaryDirectory(prefix="whyflag-demo-") as folder:
        totals = _run(Path(folder), headless, duration, rate, seed)
    if as_json:
        click.echo(json.dumps(totals))
    else:
        for name, value in totals.items():
            click.echo(f"{name.replace('_', ' '):<26}{'n/a' if value is None else f'{value:,}'}")
    lost = totals["produced"] - totals["decided"] - totals["dead_lettered"]
    if lost:
        raise WhyflagError(f"{lost} of {totals['produced']} records were neither decided nor dead-lettered")
    if totals["alerts"] != totals["explained"]:
        raise WhyflagError(f"{totals['alerts'] - totals['explained']} alerts were not explained")


def _run(folder: Path, headless: bool, duration: float | None, rate: float, seed: int) -> dict[str, Any]:
    from core.settings import Settings
    from streams.kafka.embedded import API_VERSION, EmbeddedBroker

    _prepare(folder, seed)
    ports = dict(zip(("score", "explain", "archive", "console"), free_ports(4), strict=True))
    with EmbeddedBroker() as broker, contextlib.ExitStack() as stack:
        settings = Settings(kafka_bootstrap=broker.bootstrap, kafka_api_version=API_VERSION)
        environment = (
            {name: value for name, value in os.environ.items() if not name.startswith("WHYFLAG_")}
            | {
                "WHYFLAG_KAFKA_BOOTSTRAP": broker.bootstrap,
                "WHYFLAG_KAFKA_API_VERSION": API_VERSION,
                "WHYFLAG_CHECKPOINTS": "false",  # the embedded broker has no transactions to trust, and forgets
                "WHYFLAG_DATABASE": f"sqlite:///{folder}/queue.db",
                "WHYFLAG_ARCHIVE": f"sqlite:///{folder}/archive.db",
                "WHYFLAG_BUNDLE": str(folder / "bundle"),
                "WHYFLAG_CASEBOOK": str(folder / "casebook"),
                "WHYFLAG_CONSOLE_PORT": str(ports["console"]),
                "WHYFLAG_ANALYST": os.environ.get("WHYFLAG_ANALYST", "demo-analyst"),
            }
            | {name: value for name, value in os.environ.items() if name.startswith("WHYFLAG_LLM_")}
        )
        filled = ["--transactions", str(folder / "history.parquet"), "--labels", str(folder / "history-labels.parquet")]
        _whyflag(["archive", *filled], environment=environment)
        history = ["--history", str(folder / "history.parquet"), "--labels", str(folder / "history-labels.parquet")]
        workers = [
            stack.enter_context(_Child("score", ["worker", "score", *history], environment, ports["score"], folder)),
            stack.enter_context(_Child("explain", ["worker", "explain"], environment, ports["explain"], folder)),
            stack.enter_context(_Child("archive", ["worker", "archive"], environment, ports["archive"], folder)),
            stack.enter_context(_Child("console", ["console"], environment, ports["console"], folder)),
        ]
        with stderr.status("starting workers and console …"):
            for worker in workers:
                worker.wait_ready()
        address = f"http://127.0.0.1:{ports['console']}"
        stderr.print(f"console: {address}", highlight=False)
        return _stream(settings, folder, address, workers, headless, duration, rate)


def _prepare(folder: Path, seed: int) -> None:
    """Simulate a history, and the days after it that are streamed; train on the history."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    # what is streamed lies in the past too: the pipeline refuses events from the future
    live = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=LIVE_DAYS)
    begin, now = live - timedelta(days=HISTORY_DAYS), int(live.timestamp() * 1000)
    days = HISTORY_DAYS + LIVE_DAYS
    _whyflag(
        [
            "simulate",
            "--out",
            str(folder),
            "--transactions",
            str(days * A_DAY),
            "--days",
            str(days),
            "--begin",
            f"{begin:%Y-%m-%d}",
            "--seed",
            str(seed),
        ]
    )
    transactions, labels = pq.read_table(folder / "transactions.parquet"), pq.read_table(folder / "labels.parquet")
    for name, table, column in (("", transactions, "event_time"), ("-labels", labels, "label_time")):
        past = pc.less(table[column], now)
        pq.write_table(table.filter(past), folder / f"history{name}.parquet")
        pq.write_table(table.filter(pc.invert(past)), folder / f"live{name}.parquet")
    _whyflag(
        [
            "train",
            "--transactions",
            str(folder / "history.parquet"),
            "--labels",
            str(folder / "history-labels.parquet"),
            "--review-budget",
            BUDGET,
            "--out",
            str(folder / "bundle"),
            "--seed",
            str(seed),
        ],
        quiet=True,
    )


def _whyflag(arguments: list[str], quiet: bool = False, environment: dict[str, str] | None = None) -> None:
    """One of our commands in a process of its own, so that its memory is free afterwards."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        stdout=subprocess.DEVNULL if quiet else sys.stderr,
        env=environment,
        check=False,
    )
    if done.returncode:
        raise WhyflagError(f"`whyflag {arguments[0]}` failed; its message is above")


def free_ports(count: int) -> list[int]:
    """Loopback ports that nobody listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


def _end_with_the_parent() -> None:
    """In a child: be killed by the kernel when the demo dies, even by ``kill -9`` (prctl(2), PR_SET_PDEATHSIG)."""
    _LIBC.prctl(1, signal.SIGKILL)


class _Child:
    """One of our long-running commands; stopped by SIGTERM at the end."""

    def __init__(self, name: str, arguments: list[str], environment: dict[str, str], port: int, folder: Path) -> None:
        self.name, self.port = name, port
        self._arguments, self._log = arguments, folder / f"{name}.log"
        self._environment = environment | ({} if name == "console" else {"WHYFLAG_METRICS_PORT": str(port)})

    def __enter__(self) -> "_Child":
        with self._log.open("wb") as log:
            # a session of its own: Ctrl-C is for the demo, which then stops its children in order
            self._process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *self._arguments],
                env=self._environment,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_the_parent,  # noqa: PLW1509 -- the demo starts its children before any thread
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def check(self) -> None:
        """
        Raises:
        WhyflagError: if the process has ended.
        """
        if self._process.poll() is not None:
            tail = "\n".join(self._log.read_text(errors="replace").splitlines()[-15:])
            raise WhyflagError(f"the {self.name} process ended with {self._process.returncode}:\n{tail}")

    def wait_ready(self) -> None:
        """
        Raises:
        WhyflagError: if it ends, or is not ready in time.
        """
        deadline = time.monotonic() + _READY_SECONDS
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError, urllib.error.URLError):
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/ready", timeout=2).close()
                return
            time.sleep(0.1)
        raise WhyflagError(f"the {self.name} process was not ready after {_READY_SECONDS} s")


class _Feed(threading.Thread):
    """Streams live transactions at a rate, each label when its time has come, and a broken record now and then."""

    def __init__(self, settings: "Settings", folder: Path, rate: float) -> None:
        super().__init__(name="feed", daemon=True)
        self._settings, self._folder, self._rate = settings, folder, rate
        self.sent_at: dict[str, int] = {}
        self.produced = self.settled = 0
        self.simulated_time = 0
        self.error: Exception | None = None
        self.halt = threading.Event()

    def run(self) -> None:
        """Until last_report to halt or the simulated future is over."""
        try:
            self._feed()
        except Exception as error:  # last_report by the main thread
            self.error = error

    def _feed(self) -> None:
        from core.messages import encode
        from core.topics import LABELS, TRANSACTIONS
        from streams.kafka.clients import Sender
        from training.data.mapping import load_mapping
        from training.data.readers import TransactionFile, read_labels
        from training.replay import transactions_of

        labels = deque(read_labels(self._folder / "live-labels.parquet"))
        source = TransactionFile(self._folder / "live.parquet", load_mapping("whyflag"))
        sender, others = Sender(self._settings, self._rate), Sender(self._settings, 0)
        try:
            for transaction in transactions_of(source):
                while self.produced - self.settled > _BEHIND_AT_MOST and not self.halt.is_set():
                    time.sleep(0.01)
                if self.halt.is_set():
                    return
                while labels and labels[0].label_time <= transaction.event_time:
                    label = labels.popleft()
                    others.send(LABELS, label.card_id.encode(), encode(label))
                sender.send(TRANSACTIONS, transaction.card_id.encode(), encode(transaction))
                self.sent_at[transaction.transaction_id] = time.time_ns() // 1_000_000
                self.simulated_time = transaction.event_time
                self.produced += 1
                if self.produced % _POISON_EVERY == 0:
                    others.send(TRANSACTIONS, transaction.card_id.encode(), encode(transaction)[:-9])
                    self.produced += 1
        finally:
            sender.close()
            others.close()


class _Watch:
    """What has come out so far."""

    def __init__(self) -> None:
        self.outcomes = {"approve": 0, "review": 0, "decline": 0}
        self.dead_lettered = 0
        self.alerts: dict[str, Decision] = {}
        self.explained: set[str] = set()
        self.latest: deque[tuple[Decision, Explanation]] = deque(maxlen=8)
        self.latencies: list[int] = []
        self._decided: set[str] = set()

    @property
    def decided(self) -> int:
        """Transactions with a decision, each once."""
        return len(self._decided)

    def take(self, record: Any, sent_at: dict[str, int]) -> None:
        """Count one record."""
        from core.messages import decode_alert, decode_decision, decode_explanation
        from core.topics import ALERTS, DECISIONS, EXPLANATIONS

        if record.topic == DECISIONS:
            decision = decode_decision(record.value)
            if decision.transaction_id in self._decided:
                return
            self._decided.add(decision.transaction_id)
            self.outcomes[decision.outcome.value] += 1
            if (sent := sent_at.pop(decision.transaction_id, None)) is not None:
                self.latencies.append(max(record.timestamp - sent, 0))
        elif record.topic == ALERTS:
            alert = decode_alert(record.value)
            self.alerts[alert.alert_id] = alert.decision
        elif record.topic == EXPLANATIONS:
            explanation = decode_explanation(record.value)
            self.explained.add(explanation.alert_id)
            if (flagged := self.alerts.get(explanation.alert_id)) is not None:
                self.latest.appendleft((flagged, explanation))
        else:
            self.dead_lettered += 1

    def quantile(self, share: float) -> int | None:
        """A quantile of the time from produce to decision, ms."""
        if not self.latencies:
            return None
        ordered = sorted(self.latencies)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)]


def _stream(
    settings: "Settings", folder: Path, address: str, workers: list[_Child], headless: bool, duration: float | None, rate: float
) -> dict[str, Any]:
    """Feed and watch until it is time to stop, then until all that was fed has come out."""
    from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, EXPLANATIONS
    from streams.kafka.clients import Observer

    watch, feed = _Watch(), _Feed(settings, folder, rate)
    observer = Observer(settings, (DECISIONS, ALERTS, EXPLANATIONS, DEAD_LETTERS))
    stop = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    begin = time.monotonic()
    feed.start()

    def look() -> None:
        for record in observer.poll(100):
            watch.take(record, feed.sent_at)
        feed.settled = watch.decided + watch.dead_lettered
        for worker in workers:
            worker.check()
        if feed.error:
            raise feed.error

    try:
        with _view(headless) as show:
            last_report = begin
            while not stop.is_set() and (duration is None or time.monotonic() - begin < duration):
                look()
                show(watch, feed, address, time.monotonic() - begin)
                if headless and time.monotonic() - last_report >= 5:
                    last_report = time.monotonic()
                    stderr.print(
                        f"{watch.decided:,} decided, {len(watch.alerts)} alerts, {len(watch.explained)} explained …",
                        highlight=False,
                    )
            streamed = time.monotonic() - begin
            feed.halt.set()
            feed.join()
            deadline = time.monotonic() + _DRAIN_SECONDS
            while time.monotonic() < deadline and not (
                watch.decided + watch.dead_lettered >= feed.produced and watch.alerts.keys() <= watch.explained
            ):
                look()
                show(watch, feed, address, time.monotonic() - begin)
    finally:
        feed.halt.set()
        observer.close()
        signal.signal(signal.SIGINT, previous)
    return {
        "produced": feed.produced,
        "decided": watch.decided,
        "dead_lettered": watch.dead_lettered,
        "approved": watch.outcomes["approve"],
        "reviewed": watch.outcomes["review"],
        "declined": watch.outcomes["decline"],
        "alerts": len(watch.alerts),
        "explained": len(watch.explained),
        "p50_ms": watch.quantile(0.5),
        "p99_ms": watch.quantile(0.99),
        "transactions_per_second": round(feed.produced / streamed, 1),
    }


@contextlib.contextmanager
def _view(headless: bool) -> Iterator[Any]:
    """How the run is shown: a live screen on a terminal, nothing otherwise."""
    if headless or not stderr.is_terminal:
        yield lambda *_: None
        return
    from rich.live import Live

    with Live(console=stderr, refresh_per_second=4) as live:
        yield lambda *state: live.update(_screen(*state))


def _screen(watch: _Watch, feed: _Feed, address: str, elapsed: float) -> "RenderableType":
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    from core.messages import Side
    from explain.words import ENGLISH, writer

    totals = Table.grid(padding=(0, 3))
    when = datetime.fromtimestamp(feed.simulated_time / 1000, UTC)
    totals.add_row(
        "transactions",
        f"{feed.produced:,}",
        "approved",
        f"{watch.outcomes['approve']:,}",
        "simulated time",
        f"{when:%Y-%m-%d %H:%M}",
    )
    totals.add_row(
        "a second",
        f"{feed.produced / max(elapsed, 0.1):,.0f}",
        "[yellow]review[/]",
        f"{watch.outcomes['review']:,}",
        "produce to decision",
        f"p50 {watch.quantile(0.5)} ms, p99 {watch.quantile(0.99)} ms",
    )
    totals.add_row(
        "dead letters",
        f"{watch.dead_lettered:,}",
        "[red]declined[/]",
        f"{watch.outcomes['decline']:,}",
        "alerts explained",
        f"{len(watch.explained)} of {len(watch.alerts)}",
    )
    alerts = Table(expand=True, box=None, header_style="dim")
    for name, justify in (("outcome", "left"), ("probability", "right"), ("amount", "right"), ("top reason", "left")):
        alerts.add_column(name, justify=justify, no_wrap=name != "top reason")  # type: ignore[arg-type]
    for decision, explanation in watch.latest:
        strongest = next((fact for fact in explanation.facts if fact.feature and fact.side is Side.FRAUD), None)
        reason = writer(ENGLISH).sentence(strongest) if strongest else ", ".join(decision.reason_codes)
        style = "red" if decision.outcome == "decline" else "yellow"
        alerts.add_row(
            Text(decision.outcome, style),
            f"{(decision.probability or 0) * 100:.1f} %",
            money(decision.amount, decision.currency),
            reason,
        )
    return Group(
        Panel(totals, title="whyflag", title_align="left"),
        Panel(alerts, title="latest alerts", title_align="left"),
        Text.assemble("Work the queue at ", (address, "bold cyan"), " · Ctrl-C stops"),
    )
