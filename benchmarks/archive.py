"""
Benchmark of the archive on a local PostgreSQL: the worker's stage stores transactions, and one alert's history is read back.

The archive first stores 100,000 transactions spread over 90 days, then ``COUNT`` (default 500,000) of today in chunks of
5,000. Both loads are timed. The server is Debian's PostgreSQL with its defaults, on the same two cores.
"""

import asyncio
import os
import platform
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from analyst.archive import Archive
from core.clock import MS_PER_DAY, SystemClock
from core.decoding import decode_transaction
from core.messages import Channel, Transaction, encode
from core.privacy.masking import Privacy
from core.topics import TRANSACTIONS
from explain.facts.history import card_history
from streams.stages.archive import ArchiveStage
from streams.stages.stage import Chunk
from tests.conftest import postgres_server

PAST, COUNT, CHUNK = 100_000, int(os.environ.get("COUNT", "500000")), 5_000
_CARDS, _MERCHANTS, _DAYS = 20_000, 5_000, 90
_LOG_APPEND_TIME = 1


def records(rng: np.random.Generator, first: int, count: int, begin: int, end: int) -> list[Any]:
    """Return Kafka records of transactions between two times (epoch ms). Offsets begin at ``first``."""
    cards, merchants = rng.integers(0, _CARDS, count).tolist(), rng.integers(0, _MERCHANTS, count).tolist()
    times, amounts = np.sort(rng.integers(begin, end, count)).tolist(), rng.integers(100, 50_000, count).tolist()
    transactions = (
        Transaction(
            transaction_id=f"t{first + i:09d}", event_time=times[i], card_id=f"card-{cards[i]:06d}",
            merchant_id=f"merchant-{merchants[i]:05d}", merchant_name=f"Shop {merchants[i]}", amount=amounts[i], currency="EUR",
            mcc="5411", country="FR", channel=Channel.CARD_PRESENT, device_id=f"device-{cards[i]:06d}", lat=50.6, lon=3.1,
        )
        for i in range(count)
    )  # fmt: skip
    return [
        SimpleNamespace(
            topic=TRANSACTIONS, partition=0, offset=first + i, timestamp=one.event_time, timestamp_type=_LOG_APPEND_TIME, key=b"",
            value=encode(one),
        )
        for i, one in enumerate(transactions)
    ]  # fmt: skip


async def store(stage: ArchiveStage, made: list[Any]) -> float:
    """Store records in chunks and return the seconds it took."""
    began = time.perf_counter()
    for begin in range(0, len(made), CHUNK):
        await stage.process([Chunk(TRANSACTIONS, 0, made[begin : begin + CHUNK])])
    return time.perf_counter() - began


def main() -> None:
    """Print the figures."""
    clock, rng = SystemClock(), np.random.default_rng(0)
    now = clock.now_ms()
    past = records(rng, 0, PAST, now - _DAYS * MS_PER_DAY, now)
    today = records(rng, PAST, COUNT, now - 60_000, now)
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {COUNT:,} transactions after {PAST:,}"
    )
    with postgres_server(sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1], fsync=True) as url:
        archive = Archive(url, clock, days=_DAYS + 10)
        archive.migrate()
        stage = ArchiveStage(archive, Privacy(), clock, 7 * MS_PER_DAY)
        print(f"{'over 90 days':<16} {PAST / asyncio.run(store(stage, past)):10,.0f} transactions/s, including daily partitions")
        for name in ("of today", "stored again"):
            print(f"{name:<16} {COUNT / asyncio.run(store(stage, today)):10,.0f} transactions/s")
        seconds = []
        for number in rng.choice(COUNT, 300, replace=False).tolist():
            asked = decode_transaction(today[number].value, Privacy())
            began = time.perf_counter()
            card_history(asked, archive)
            seconds.append(time.perf_counter() - began)
        ms = np.array(seconds) * 1000
        print(f"one alert's history: p50 {np.median(ms):.1f} ms, p99 {np.quantile(ms, 0.99):.1f} ms")
        archive.close()


if __name__ == "__main__":
    main()
