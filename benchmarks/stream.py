"""
The scoring path on Apache Kafka: one worker pinned to one core, both hops, checkpoints, a trained model. Kafka and the load on the other.

Beside it, in the same run on the same topic: a stock Faust agent with an empty body, and a bare aiokafka loop that decodes and scores.
"""

import asyncio
import os
import platform
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import pyarrow.parquet as pq

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from aiokafka import AIOKafkaConsumer  # noqa: E402

from core.decoding import decode_transactions  # noqa: E402
from core.messages import encode  # noqa: E402
from core.settings import Settings  # noqa: E402
from core.topics import TRANSACTIONS  # noqa: E402
from models.bundle import load_bundle  # noqa: E402
from models.features.columns import UNKNOWN_AMOUNT  # noqa: E402
from models.features.engine import FeatureEngine  # noqa: E402
from models.scorer import score  # noqa: E402
from streams.clients import create_topics  # noqa: E402
from streams.publishing import Outputs, Publisher  # noqa: E402
from tests.kafka import KafkaCluster  # noqa: E402
from tests.workers import Worker  # noqa: E402
from training.mapping import load_mapping  # noqa: E402
from training.readers import TransactionFile  # noqa: E402
from training.replay import transactions_of  # noqa: E402

N = int(os.environ.get("TRANSACTIONS", "200000"))
PARTITIONS = 4

STOCK = """
import asyncio, os, sys, time
import faust
app = faust.App("stock", broker="kafka://" + sys.argv[1], store="memory://", datadir="/tmp", web_enabled=False,
                topic_disable_leader=True, topic_allow_declare=False, consumer_auto_offset_reset="earliest", origin=None, autodiscover=False)
topic = app.topic("transactions", value_type=bytes, value_serializer="raw")
seen, began = 0, 0.0
@app.agent(topic)
async def empty(stream):
    global seen, began
    async for value in stream:
        began = began or time.perf_counter()
        seen += 1
        if seen == int(sys.argv[2]):
            print(seen / (time.perf_counter() - began), flush=True)
            os._exit(0)
faust.Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()
"""


def whyflag(*arguments: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], check=True, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def pinned(pid: int, core: int) -> None:
    subprocess.run(["taskset", "-acp", str(core), str(pid)], check=True, stdout=subprocess.DEVNULL)


async def load(bootstrap: str, path: Path) -> None:
    """All transactions into Kafka, keyed as any producer keys them."""
    from aiokafka.partitioner import DefaultPartitioner

    murmur2, places = DefaultPartitioner(), list(range(PARTITIONS))
    publisher = Publisher(bootstrap)
    await publisher.start()
    batches = [Outputs(TRANSACTIONS, [], [], partition) for partition in places]
    for transaction in transactions_of(TransactionFile(path, load_mapping("whyflag"))):
        key = transaction.card_id.encode()
        batch = batches[murmur2(key, places, places)]
        batch.keys.append(key)
        batch.values.append(encode(transaction))
    await publisher.publish(batches)
    await publisher.stop()


def worker_rate(kafka: Settings, bundle: Path, count: int) -> tuple[float, dict[str, float], float]:
    """Decided transactions a second of one worker that meets the whole topic; its CPU seconds by stage; memory in MB."""
    with Worker("score", kafka, bundle=bundle) as worker:
        pinned(worker.process.pid, 0)
        first = None
        while True:
            done = _metric(worker.port, 'whyflag_records_total{stage="score",topic="profiled"}')
            now = time.perf_counter()
            if first is None and done > 20_000:
                first = (now, done)
            if done >= count and first is not None:
                break
            time.sleep(0.5)  # asking takes the worker 10 ms
        rate = (done - first[1]) / (now - first[0])
        batches = {
            f"{stage} {kind}": _metric(worker.port, f'whyflag_{kind}_seconds_sum{{stage="{stage}"}}')
            for stage in ("profile", "score")
            for kind in ("batch", "ack", "checkpoint")
        }
        status = Path(f"/proc/{worker.process.pid}/status").read_text()
        memory = int(status.split("VmHWM:")[1].split()[0]) / 1024
        return rate, batches, memory


def _metric(port: int, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith(name + " "):
                return float(line.rsplit(" ", 1)[1])
    return 0.0


def stock_rate(bootstrap: str, count: int) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(STOCK)
        script.flush()
        done = subprocess.run(
            ["taskset", "-c", "0", sys.executable, script.name, bootstrap, str(count), "worker"],
            check=True,
            capture_output=True,
            text=True,
            timeout=300,
        )
    return float(done.stdout.split()[-1])


async def bare_rate(bootstrap: str, bundle_dir: Path, count: int) -> float:
    """A loop that decodes, computes all features, scores, and forgets: no hops, no outputs, no checkpoints."""
    bundle = load_bundle(bundle_dir)
    engine = FeatureEngine(bundle.spec)
    done, began = 0, 0.0
    async with AIOKafkaConsumer(
        TRANSACTIONS, bootstrap_servers=bootstrap, group_id=None, auto_offset_reset="earliest"
    ) as consumer:
        while done < count:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=500)).values():
                columns = engine.columns(decode_transactions([record.value for record in records], b""))
                X, _, _ = engine.update(columns)
                score(bundle, X, columns.amount == UNKNOWN_AMOUNT)
                began = began or time.perf_counter()
                done += len(records)
    return done / (time.perf_counter() - began)


def main() -> None:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; {N:,} transactions, {PARTITIONS} partitions"
    )
    with tempfile.TemporaryDirectory(prefix="whyflag-bench-") as name:
        folder = Path(name)
        whyflag("simulate", "--out", str(folder), "--transactions", str(N), "--days", "60")
        whyflag(
            "train", "--transactions", str(folder / "transactions.parquet"), "--labels", str(folder / "labels.parquet"),
            "--review-budget", "20/day", "--out", str(folder / "bundle"),
        )  # fmt: skip
        ids = pq.read_table(folder / "transactions.parquet", columns=["card_id"])["card_id"]
        count, cards = len(ids), len(ids.unique())
        with KafkaCluster(folder / "kafka", lasting=True) as cluster:
            pinned(cluster.nodes[0].process.pid, 1)
            kafka = Settings(kafka_bootstrap=cluster.bootstrap, max_poll_records=2_000)
            create_topics(kafka, partitions=PARTITIONS, replication=1)
            asyncio.run(load(cluster.bootstrap, folder / "transactions.parquet"))
            stock = stock_rate(cluster.bootstrap, 30_000)
            print(f"stock Faust agent, empty body          {stock:>10,.0f} transactions/s", flush=True)
            os.sched_setaffinity(0, {0})
            bare = asyncio.run(bare_rate(cluster.bootstrap, folder / "bundle", count))
            print(f"bare aiokafka loop, decode and score   {bare:>10,.0f} transactions/s", flush=True)
            os.sched_setaffinity(0, {1})
            rate, spent, memory = worker_rate(kafka, folder / "bundle", count)
            print(
                f"whyflag, both hops, checkpoints of 1 s {rate:>10,.0f} transactions/s, {rate / stock:.1f} x stock, {cards:,} cards, {memory:,.0f} MB"
            )
            for what, seconds in spent.items():
                print(f"  {what:<20} {seconds / count * 1e6:6.1f} µs a transaction")


if __name__ == "__main__":
    main()
