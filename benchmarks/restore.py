"""
Benchmark of the state of many cards on Apache Kafka: write one checkpoint, restore it as a worker does, memory per card.

``CARDS`` and ``EACH`` (transactions per card, spread over 30 days) set the size. All cards are in one partition, the worst case.
"""

import asyncio
import os
import platform
import tempfile
import time
from pathlib import Path

import numpy as np

from core.settings import Settings
from core.topics import PROFILE_CHECKPOINTS
from models.features.columns import TransactionColumns
from models.features.spec import default_spec
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.kafka.clients import create_topics
from streams.kafka.connection import Connection
from streams.state import PartitionState
from tests.kafka import KafkaCluster

CARDS, EACH = int(os.environ.get("CARDS", "1000000")), int(os.environ.get("EACH", "8"))
_DAY = 86_400_000


def columns(rng: np.random.Generator, number: int) -> TransactionColumns:
    """Return one transaction of every card."""
    n = CARDS
    return TransactionColumns(
        transaction=(np.arange(n, dtype=np.uint64) + np.uint64(number * n)) * np.uint64(0x9E3779B97F4A7C15),
        event_time=1_750_000_000_000 + number * (30 * _DAY // EACH) + rng.integers(0, _DAY, n),
        card=np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0xD6E8FEB86659FD93),
        merchant=rng.integers(1, 50_000, n).astype(np.uint64),
        device=rng.integers(0, 3, n).astype(np.uint64),
        content=rng.integers(0, 1 << 62, n).astype(np.uint64),
        amount=rng.integers(100, 50_000, n),
        attributes=rng.integers(1, 50_000, n) << 28,
        lat=rng.uniform(40, 50, n),
        lon=rng.uniform(0, 10, n),
    )


async def measure(bootstrap: str) -> None:
    spec, rng = default_spec(), np.random.default_rng(0)
    state = PartitionState(spec, spec.entities[:1])
    for number in range(EACH):
        state.engines[0].update(columns(rng, number))
    log = CheckpointLog(Connection(bootstrap), PROFILE_CHECKPOINTS, 0)
    await log.claim()
    began = time.perf_counter()
    rows = state.changed()
    packed = time.perf_counter() - began
    size = sum(len(row) for _, row in rows)
    await log.write(
        rows,
        Checkpoint(spec=spec.version, bundle="", partitions=1, positions={}, origins={}, keys=state.keys, digest=state.digest),
    )
    written = time.perf_counter() - began
    await log.close()
    del rows
    restored = PartitionState(spec, spec.entities[:1])
    began = time.perf_counter()
    checkpoint = await CheckpointLog(Connection(bootstrap), PROFILE_CHECKPOINTS, 0).read(restored.load)
    took = time.perf_counter() - began
    assert checkpoint is not None
    assert restored.digest == checkpoint.digest
    print(f"{state.keys:,} cards with {EACH} transactions each: {size / state.keys:,.0f} bytes per card in the log")
    print(
        f"memory                {restored.nbytes / restored.keys:10,.0f} bytes per card after the restore, "
        f"{state.nbytes / state.keys:,.0f} when built from events"
    )
    print(f"rows packed           {packed:10.1f} s")
    print(f"packed and written    {written:10.1f} s")
    print(f"restored and checked  {took:10.1f} s")


def main() -> None:
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    with (
        tempfile.TemporaryDirectory(prefix="whyflag-bench-") as folder,
        KafkaCluster(Path(folder) / "kafka", lasting=True) as cluster,
    ):
        create_topics(Settings(kafka_bootstrap=cluster.bootstrap), partitions=1, replication=1)
        asyncio.run(measure(cluster.bootstrap))


if __name__ == "__main__":
    main()
