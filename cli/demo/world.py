"""The demo's simulated world: a history to train on, and the days after it, which are streamed."""

import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.progress import stderr
from core.errors import WhyflagError

HISTORY_DAYS, LIVE_DAYS, TRANSACTIONS_PER_DAY = 60, 60, 2_000
REVIEW_BUDGET = "20/day"


def prepare(folder: Path, seed: int) -> None:
    """Write ``history`` and ``live`` files of transactions and labels to ``folder``, and train a bundle on the history."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    # the streamed days lie in the past too: the pipeline refuses events from the future
    live = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=LIVE_DAYS)
    begin, days = live - timedelta(days=HISTORY_DAYS), HISTORY_DAYS + LIVE_DAYS
    stderr.print(f"simulating {days * TRANSACTIONS_PER_DAY:,} payments over {days} days …", highlight=False)
    size = ["--transactions", str(days * TRANSACTIONS_PER_DAY), "--days", str(days)]
    run_whyflag(["simulate", "--out", str(folder), *size, "--begin", f"{begin:%Y-%m-%d}", "--seed", str(seed)])
    transactions, labels = pq.read_table(folder / "transactions.parquet"), pq.read_table(folder / "labels.parquet")
    for name, table, column in (("", transactions, "event_time"), ("-labels", labels, "label_time")):
        past = pc.less(table[column], int(live.timestamp() * 1000))
        pq.write_table(table.filter(past), folder / f"history{name}.parquet")
        pq.write_table(table.filter(pc.invert(past)), folder / f"live{name}.parquet")
    stderr.print(f"training a model on the first {HISTORY_DAYS} days …", highlight=False)
    history = ["--transactions", str(folder / "history.parquet"), "--labels", str(folder / "history-labels.parquet")]
    run_whyflag(["train", *history, "--review-budget", REVIEW_BUDGET, "--out", str(folder / "bundle"), "--seed", str(seed)])


def run_whyflag(arguments: list[str], environment: Mapping[str, str] | None = None) -> None:
    """
    Run one command in a process of its own, so that its memory is freed afterwards. Show its progress, but not its results.

    Raises:
        WhyflagError: if the command fails.
    """
    command = [sys.executable, "-m", "cli.main", *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, env=dict(environment) if environment else None, check=False)
    if done.returncode:
        raise WhyflagError(f"`whyflag {arguments[0]}` failed; its message is above")
