"""Shared setup of the stream benchmarks: a simulated world, a bundle trained on it, and a broker and workers pinned to cores."""

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow.parquet as pq
from aiokafka.partitioner import DefaultPartitioner
from msgspec import Struct

from core.messages import Transaction, encode
from core.settings import Settings
from core.topics import TRANSACTIONS
from streams.kafka.clients import create_topics
from streams.kafka.connection import Connection
from streams.kafka.publishing import Outputs, Publisher
from tests.kafka import KafkaCluster, emptied
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.replay import transactions_of

ROOT = Path(__file__).parents[1]
PARTITIONS = 4
WORKER_CORE, OTHER_CORE = 0, 1
_murmur2 = DefaultPartitioner()


class Setting(Struct):
    """The environment of a benchmark: data folder, broker and its settings, and the number of transactions and cards."""

    folder: Path
    cluster: KafkaCluster
    kafka: Settings
    count: int
    cards: int

    @property
    def bundle(self) -> Path:
        return self.folder / "bundle"

    def transactions(self) -> Iterator[Transaction]:
        return transactions_in(self.folder)

    def load(self) -> None:
        """Recreate the topics and publish all transactions."""
        emptied(self.cluster.bootstrap)
        create_topics(self.kafka, partitions=PARTITIONS, replication=1)
        asyncio.run(self._load())

    def written(self) -> dict[str, int]:
        """Return the bytes of each topic on the broker's disk."""
        found: dict[str, int] = {}
        for path in self.cluster.nodes[0].folder.glob("data/*/*.log"):
            topic, _, partition = path.parent.name.rpartition("-")
            if partition.isdigit():
                found[topic] = found.get(topic, 0) + path.stat().st_size
        return found

    async def _load(self) -> None:
        publisher = Publisher(Connection(self.cluster.bootstrap))
        await publisher.start()
        await publisher.publish(batches(self.transactions()))
        await publisher.stop()


def transactions_in(folder: Path) -> Iterator[Transaction]:
    """Return the transactions of a simulated world."""
    return transactions_of(TransactionFile(folder / "transactions.parquet", load_mapping("whyflag")))


def trained_world(folder: Path, count: int) -> None:
    """Simulate about ``count`` transactions over 60 days, and train a bundle of 200 trees on them."""
    _whyflag("simulate", "--out", str(folder), "--transactions", str(count), "--days", "60")
    _whyflag(
        "train", "--transactions", str(folder / "transactions.parquet"), "--labels", str(folder / "labels.parquet"),
        "--review-budget", "20/day", "--out", str(folder / "bundle"),
    )  # fmt: skip


def batches(transactions: Iterator[Transaction], partitions: int = PARTITIONS) -> list[Outputs]:
    """Return one batch per partition. Cards are the keys, and keys are assigned to partitions as Kafka's producers do it."""
    places = list(range(partitions))
    found = [Outputs(TRANSACTIONS, [], [], partition) for partition in places]
    for transaction in transactions:
        key = transaction.card_id.encode()
        batch = found[_murmur2(key, places, places)]
        batch.keys.append(key)
        batch.values.append(encode(transaction))
    return found


def pinned(pid: int, *cores: int) -> None:
    subprocess.run(["taskset", "-acp", ",".join(map(str, cores)), str(pid)], check=True, stdout=subprocess.DEVNULL)


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process has used."""
    used = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]  # in user and in kernel mode
    return sum(map(int, used)) / os.sysconf("SC_CLK_TCK")


def metric(port: int, name: str) -> float:
    """Return one of a worker's metrics, summed over the labels that are not given. The request costs the worker a few milliseconds."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        lines = answer.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{")))


def _whyflag(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


@contextmanager
def setting(count: int) -> Iterator[Setting]:
    """Prepare a trained world and a broker on the other core, and yield the setting."""
    with tempfile.TemporaryDirectory(prefix="whyflag-bench-") as name:
        folder = Path(name)
        trained_world(folder, count)
        ids = pq.read_table(folder / "transactions.parquet", columns=["card_id"])["card_id"]
        with KafkaCluster(folder / "kafka", lasting=True) as cluster:
            pinned(cluster.nodes[0].process.pid, OTHER_CORE)
            os.sched_setaffinity(0, {OTHER_CORE})
            kafka = Settings(kafka_bootstrap=cluster.bootstrap, max_poll_records=2_000)
            made = Setting(folder, cluster, kafka, len(ids), len(ids.unique()))
            print(
                f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {made.count:,} transactions of "
                f"{made.cards:,} cards, {PARTITIONS} partitions, Apache Kafka with one broker",
                flush=True,
            )
            yield made
