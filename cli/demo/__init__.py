"""``whyflag demo``: the whole pipeline on this machine, with nothing else installed."""

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
import webbrowser
from pathlib import Path

import click
import msgspec

from cli.demo.results import Totals
from cli.demo.stream import stream
from cli.demo.world import prepare, run_whyflag
from cli.progress import stderr
from cli.supervisor import Child, free_ports, whyflag_environment
from core.errors import WhyflagError


@click.command()
@click.option("--headless", is_flag=True, help="Print a line every few seconds instead of the live view.")
@click.option("--duration", type=click.FloatRange(1), default=None, help="Seconds of streaming. [default: until Ctrl-C]")
@click.option("--rate", type=click.FloatRange(1, 2_000), default=80.0, show_default=True, help="Transactions per second.")
@click.option("--json", "as_json", is_flag=True, help="Print the totals as JSON.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="Seed of the simulated world.")
def command(headless: bool, duration: float | None, rate: float, as_json: bool, seed: int) -> None:
    """
    Simulate, train, and watch the whole pipeline run on an embedded broker.

    Exits with status 1 unless every transaction was decided or dead-lettered and every alert was explained.
    """
    began = time.monotonic()
    # SIGTERM raises KeyboardInterrupt, so that the demo still stops its processes and removes its folder
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="whyflag-demo-") as folder:
        stderr.print(
            "whyflag demo: simulates card payments, trains a model on the first half, streams the second half through the pipeline, "
            "and explains each alert.\n"
            f"Everything is kept in {folder}. Ctrl-C stops the demo and removes that folder; nothing else is written.\n"
            "The console opens in one to three minutes; the first run also compiles the feature kernels.",
            highlight=False,
        )
        totals = _run(Path(folder), headless, duration, rate, seed, began)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(totals)))
    else:
        for name, value in msgspec.to_builtins(totals).items():
            click.echo(f"{name.replace('_', ' '):<26}{'n/a' if value is None else f'{value:,}'}")
    if lost := totals.produced - totals.decided - totals.dead_lettered:
        raise WhyflagError(f"{lost} of {totals.produced} records were neither decided nor dead-lettered")
    if totals.alerts != totals.explained:
        raise WhyflagError(f"{totals.alerts - totals.explained} alerts were not explained")


def _stop(child: Child) -> None:
    """Stop a child; one that does not stop in time has been killed."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.stop()


def _first_invitation(database: str) -> str:
    """Return the secret of a link with which the first user of the console chooses a password."""
    from analyst.access.accounts import Accounts
    from analyst.access.throttle import Throttle
    from analyst.queue import Queue
    from core.clock import SystemClock

    queue = Queue(database, SystemClock())
    with contextlib.closing(queue):
        secret = Accounts(queue.database, queue.clock, Throttle(queue.database, queue.clock)).first_invitation()
    assert secret is not None, "a new database has no administrator"
    return secret


def _run(folder: Path, headless: bool, duration: float | None, rate: float, seed: int, began: float) -> Totals:
    """Prepare the world, start broker, workers and console, and stream."""
    from core.settings import Settings
    from streams.kafka.embedded import API_VERSION, EmbeddedBroker

    prepare(folder, seed)
    history = ["--transactions", str(folder / "history.parquet"), "--labels", str(folder / "history-labels.parquet")]
    with EmbeddedBroker() as broker, contextlib.ExitStack() as stack:
        settings = Settings(kafka_bootstrap=broker.bootstrap, kafka_api_version=API_VERSION)
        ports = free_ports(5)
        environment = whyflag_environment(
            {
                "WHYFLAG_KAFKA_BOOTSTRAP": broker.bootstrap,
                "WHYFLAG_KAFKA_API_VERSION": API_VERSION,
                "WHYFLAG_CHECKPOINTS": "false",  # the embedded broker does not support Kafka transactions or persist records
                "WHYFLAG_DATABASE": f"sqlite:///{folder}/queue.db",
                "WHYFLAG_ARCHIVE": f"sqlite:///{folder}/archive.db",
                "WHYFLAG_BUNDLE": str(folder / "bundle"),
                "WHYFLAG_CASEBOOK": str(folder / "casebook"),
            }
            | {name: value for name, value in os.environ.items() if name.startswith("WHYFLAG_LLM_")}
        )
        stderr.print("filling the archive with the past payments …", highlight=False)
        run_whyflag(["archive", *history], environment)
        commands = {
            "score": ["worker", "score", "--history", history[1], *history[2:]],
            "explain": ["worker", "explain"],
            "archive": ["worker", "archive"],
            "console": ["console"],
        }
        children = []
        for (name, arguments), port in zip(commands.items(), ports, strict=False):
            served = {
                "WHYFLAG_METRICS_PORT": str(port),
                "WHYFLAG_METRICS_HOST": "127.0.0.1",
                "WHYFLAG_CONSOLE_PORT": str(ports[-1]),
            }
            child = Child(arguments, environment | served, port, folder / f"{name}.log")
            child.start(end_with_parent=True)
            stack.callback(_stop, child)
            children.append(child)
        with stderr.status("starting workers and console …"):
            for child in children:
                child.wait_ready()
        address = f"http://127.0.0.1:{ports[-1]}"
        link = f"{address}/invitation/{_first_invitation(environment['WHYFLAG_DATABASE'])}"
        stderr.print(f"console: {address} (after {time.monotonic() - began:.0f} s)", highlight=False)
        stderr.print(f"Choose a password for its first user, admin, at\n{link}", highlight=False, soft_wrap=True)
        if not headless and stderr.is_terminal:
            webbrowser.open(link)
        return stream(settings, folder, address, children, headless, duration, rate)
