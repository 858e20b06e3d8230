"""
Benchmark of a rolling restart: three scoring workers on Apache Kafka are stopped and started one after the other, under load.

It prints how often partitions moved, for how long no decision was made, and how many records were processed twice. ``RATE`` sets the
transactions per second.
"""

import os
import platform
import re
import tempfile
import threading
from pathlib import Path

import numpy as np

from benchmarks.setting import trained_world, transactions_in
from core.messages import decode_decision, encode
from core.settings import Settings
from core.topics import DECISIONS, TRANSACTIONS
from streams.kafka.clients import Observer, Sender, create_topics
from tests.kafka import KafkaCluster
from tests.workers import Worker

RATE, PARTITIONS, WORKERS = int(os.environ.get("RATE", "500")), 6, 3
_STEADY_SECONDS = 10.0


def metric(worker: Worker, name: str) -> int:
    return sum(int(float(value)) for value in re.findall(rf"^{name}(?:\{{.*\}})? ([0-9.e+]+)$", worker.get("metrics"), re.M))


class Load(threading.Thread):
    """Sends transactions at a steady rate until it is stopped."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        super().__init__()
        self._settings, self._folder, self.stopping, self.sent = settings, folder, threading.Event(), 0

    def run(self) -> None:
        sender = Sender(self._settings, RATE)
        for one in transactions_in(self._folder):
            if self.stopping.is_set():
                break
            sender.send(TRANSACTIONS, one.card_id.encode(), encode(one))
            self.sent += 1
        sender.close()


def restart_all(settings: Settings, bundle: Path, load: Load) -> tuple[int, int]:
    """Restart each worker; return the number of rebalances, and of records that were processed again."""
    workers = [Worker("score", settings, bundle=bundle).__enter__() for _ in range(WORKERS)]
    load.start()
    load.stopping.wait(_STEADY_SECONDS)
    before = sum(metric(worker, "whyflag_rebalances_total") for worker in workers)
    rebalances = replayed = 0
    for at, worker in enumerate(workers):
        rebalances += metric(worker, "whyflag_rebalances_total")
        replayed += metric(worker, "whyflag_replayed_total")
        worker.stop()
        workers[at] = Worker("score", settings, bundle=bundle).__enter__()
    load.stopping.wait(_STEADY_SECONDS)
    load.stopping.set()
    load.join()
    for worker in workers:
        rebalances += metric(worker, "whyflag_rebalances_total")
        replayed += metric(worker, "whyflag_replayed_total")
        worker.stop()
    return rebalances - before, replayed


def main() -> None:
    """Print the figures."""
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {WORKERS} workers, {PARTITIONS} partitions, {RATE}/s"
    )
    with tempfile.TemporaryDirectory(prefix="whyflag-bench-") as folder, KafkaCluster(Path(folder) / "kafka") as cluster:
        trained_world(Path(folder), 200_000)
        settings = Settings(kafka_bootstrap=cluster.bootstrap, session_seconds=10)
        create_topics(settings, PARTITIONS, 1)
        load = Load(settings, Path(folder))
        rebalances, replayed = restart_all(settings, Path(folder) / "bundle", load)
        observer = Observer(settings, [DECISIONS])
        records = list(observer.all())
        observer.close()
    times = np.sort(np.array([record.timestamp for record in records]))
    ids = [decode_decision(record.value).transaction_id for record in records]
    print(f"transactions sent                 {load.sent:8,}")
    print(f"decided                           {len(set(ids)):8,}")
    print(f"decided twice                     {len(ids) - len(set(ids)):8,}")
    print(f"records processed again           {replayed:8,}")
    print(f"workers given partitions          {rebalances:8,} times")
    print(f"longest time without a decision   {np.diff(times).max() / 1000:8.1f} s")
    gaps = np.diff(times)[np.diff(times) > 1000] / 1000
    print(f"pauses over 1 s                   {len(gaps):8,}, {gaps.sum():.1f} s in total")


if __name__ == "__main__":
    main()
