"""
Benchmark of the latency from produce to decision on Apache Kafka.

Transactions are sent at a steady rate, and the broker stamps each decision when it is written. One worker runs on one core with a
checkpoint per second; the broker and the sender share the other core.

The environment variable ``RATES`` (default ``2000,10000``) lists transactions per second, and ``SECONDS`` (default 15) is the duration of
each rate. Each
rate is measured with one and with four partitions, because a worker has fixed costs per chunk and a chunk belongs to one
partition.
"""

import asyncio
import os
import time
from typing import NamedTuple

import numpy as np
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from benchmarks.setting import PARTITIONS, WORKER_CORE, Setting, batches, cpu_seconds, metric, pinned, setting
from core.topics import DECISIONS
from streams.kafka.clients import create_topics
from streams.kafka.connection import Connection
from streams.kafka.publishing import Publisher
from tests.kafka import emptied
from tests.workers import Worker, collect

RATES = [int(rate) for rate in os.environ.get("RATES", "2000,10000").split(",")]
SECONDS = float(os.environ.get("SECONDS", "15"))
_TICK_SECONDS = 0.005
_WARM_UP_SECONDS = 5.0


async def sent_at(place: Setting, rate: int, partitions: int) -> dict[bytes, float]:
    """Send transactions at a rate; return when each was handed to the producer, epoch seconds by transaction id."""
    sent: dict[bytes, float] = {}
    wanted = int(rate * (SECONDS + _WARM_UP_SECONDS))
    transactions = place.transactions()
    publisher = Publisher(Connection(place.cluster.bootstrap))
    await publisher.start()
    began, deliveries = time.time(), []
    while len(sent) < wanted:
        due = min(int((time.time() - began) * rate), wanted) - len(sent)
        if due > 0:
            some = [next(transactions) for _ in range(due)]
            made, now = batches(iter(some), partitions), time.time()
            sent.update((transaction.transaction_id.encode(), now) for transaction in some)
            deliveries.append(await publisher.send(made))
        await asyncio.sleep(_TICK_SECONDS)
    await asyncio.gather(*deliveries)
    await publisher.stop()
    return sent


def latencies(place: Setting, rate: int, partitions: int) -> np.ndarray:
    """Return the ms from just before a transaction is handed to the producer until the broker has written its decision."""
    stamped_by_broker(place)
    sent = asyncio.run(sent_at(place, rate, partitions))
    first = min(sent.values()) + _WARM_UP_SECONDS
    decided = collect(place.kafka, {DECISIONS: len(sent)}, seconds=120)[DECISIONS]
    return np.array([record.timestamp - at * 1000 for record in decided if (at := sent[record.key]) >= first])


class Effort(NamedTuple):
    """Totals so far: seconds and count of each stage's activities, CPU seconds of each process, and the time."""

    spent: dict[str, tuple[float, float]]
    cpu: dict[str, float]
    at: float

    @classmethod
    def now(cls, worker: Worker, place: Setting) -> "Effort":
        spent = {
            f"{stage} {what}": tuple(
                metric(worker.port, f'whyflag_{what}_seconds_{kind}{{stage="{stage}"}}') for kind in ("sum", "count")
            )
            for stage in ("profile", "score")
            for what in ("batch", "ack")
        }
        pids = {"worker": worker.process.pid, "broker": place.cluster.nodes[0].process.pid, "sender": os.getpid()}
        return cls(spent, {name: cpu_seconds(pid) for name, pid in pids.items()}, time.perf_counter())

    def since(self, before: "Effort") -> str:
        """Describe the work since ``before``: mean ms of each activity, and cores used by each process."""
        means = []
        for name, (seconds, count) in self.spent.items():
            seconds_before, count_before = before.spent[name]
            means.append(f"{name} {(seconds - seconds_before) / max(count - count_before, 1) * 1000:.1f}")
        shares = [f"{name} {(used - before.cpu[name]) / (self.at - before.at):.2f}" for name, used in self.cpu.items()]
        return f"mean ms: {', '.join(means)}; cores used: {', '.join(shares)}"


def stamped_by_broker(place: Setting) -> None:
    """Make the broker stamp each decision when it is written. Its clock is the same as the sender's."""
    admin = KafkaAdminClient(bootstrap_servers=place.cluster.bootstrap)
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, DECISIONS, {"message.timestamp.type": "LogAppendTime"})])
    admin.close()


def main() -> None:
    with setting(int(max(RATES) * (SECONDS + _WARM_UP_SECONDS)) + 10_000) as place:
        print("partitions     rate      p50      p99    p99.9    worst   milliseconds from produce to decision")
        for partitions in (1, PARTITIONS):
            for rate in RATES:
                emptied(place.cluster.bootstrap)
                create_topics(place.kafka, partitions=partitions, replication=1)
                with Worker("score", place.kafka, bundle=place.bundle) as worker:
                    pinned(worker.process.pid, WORKER_CORE)
                    before = Effort.now(worker, place)
                    found = latencies(place, rate, partitions)
                    effort = Effort.now(worker, place).since(before)
                figures = (*np.percentile(found, (50, 99, 99.9)), found.max())
                print(f"{partitions:>10} {rate:>8,} " + " ".join(f"{figure:8.1f}" for figure in figures))
                print(f"  {effort}", flush=True)


if __name__ == "__main__":
    main()
