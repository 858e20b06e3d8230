"""
From produce to decision on Apache Kafka: transactions are sent at a steady rate, and a consumer of ``decisions`` notes when each
decision reaches it. One worker on one core with checkpoints a second; the broker, the sender and that consumer share the other.

``RATES`` (default ``2000,8000``) are transactions a second, ``SECONDS`` (default 20) how long each lasts.
"""

import asyncio
import os
import time

import numpy as np
from aiokafka import AIOKafkaConsumer

from benchmarks.setting import PARTITIONS, WORKER_CORE, Setting, batches, pinned, setting
from core.topics import DECISIONS
from streams.clients import create_topics
from streams.publishing import Publisher
from tests.kafka import emptied
from tests.workers import Worker

RATES = [int(rate) for rate in os.environ.get("RATES", "2000,8000").split(",")]
SECONDS = float(os.environ.get("SECONDS", "20"))
_TICK_SECONDS = 0.005
_WARM_UP_SECONDS = 5.0


async def latencies(place: Setting, rate: int) -> np.ndarray:
    """Milliseconds from just before a transaction is handed to the producer until its decision is read."""
    sent: dict[bytes, float] = {}
    took: list[tuple[float, float]] = []
    wanted = int(rate * (SECONDS + _WARM_UP_SECONDS))
    transactions = place.transactions()
    publisher = Publisher(place.cluster.bootstrap)
    await publisher.start()
    consumer = AIOKafkaConsumer(
        DECISIONS, bootstrap_servers=place.cluster.bootstrap, group_id=None, auto_offset_reset="earliest", fetch_max_wait_ms=5
    )
    await consumer.start()

    async def send() -> None:
        began, count = time.perf_counter(), 0
        while count < wanted:
            due = min(int((time.perf_counter() - began) * rate), wanted) - count
            if due > 0:
                some = [next(transactions) for _ in range(due)]
                made, now = batches(iter(some)), time.perf_counter()
                sent.update((transaction.transaction_id.encode(), now) for transaction in some)
                await publisher.send(made)
                count += due
            await asyncio.sleep(_TICK_SECONDS)

    async def read() -> None:
        while len(took) < wanted:
            fetched = await consumer.getmany(timeout_ms=100)
            now = time.perf_counter()
            took.extend((sent[record.key], now) for records in fetched.values() for record in records)

    try:
        async with asyncio.timeout(SECONDS * 3 + 60):
            await asyncio.gather(send(), read())
    finally:
        await consumer.stop()
        await publisher.stop()
    first = min(at for at, _ in took) + _WARM_UP_SECONDS
    return np.array([(read_at - at) * 1000 for at, read_at in took if at >= first])


def main() -> None:
    with setting(int(max(RATES) * (SECONDS + _WARM_UP_SECONDS)) + 10_000) as place:
        print(f"{'rate':>8} {'p50':>8} {'p99':>8} {'p99.9':>8} {'worst':>8}   milliseconds from produce to decision")
        for rate in RATES:
            emptied(place.cluster.bootstrap)
            create_topics(place.kafka, partitions=PARTITIONS, replication=1)
            with Worker("score", place.kafka, bundle=place.bundle) as worker:
                pinned(worker.process.pid, WORKER_CORE)
                found = asyncio.run(latencies(place, rate))
            print(
                f"{rate:>8,} " + " ".join(f"{q:8.1f}" for q in (*np.percentile(found, (50, 99, 99.9)), found.max())), flush=True
            )


if __name__ == "__main__":
    main()
