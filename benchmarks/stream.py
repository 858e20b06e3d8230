"""
Benchmark of the scoring path on Apache Kafka: one worker on one core, with both stages, checkpoints and a trained model.

Kafka and the load run on the other core. The same run measures references on the same topic: a stock Faust agent with an empty
body, a Faust agent that computes the same features and scores one event at a time with tables (``baseline.py``), Quix Streams
and Bytewax with an empty body and with a count and a sum per card (``peers.py``), and a bare aiokafka loop that decodes,
computes, scores and discards the results. The last measurement has two workers.
"""

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from itertools import product
from typing import NamedTuple

from aiokafka import AIOKafkaConsumer

from benchmarks.setting import OTHER_CORE, ROOT, WORKER_CORE, Setting, cpu_seconds, metric, pinned, setting
from core.decoding import decode_transactions
from core.messages import Transaction
from core.privacy.masking import Privacy
from core.topics import TRANSACTIONS
from models.bundles.bundle import load_bundle
from models.features.engine import FeatureEngine
from models.scorer import doubts_of, score
from tests.workers import Worker

N = int(os.environ.get("TRANSACTIONS", "200000"))
WARM_UP = 20_000
PEERS = {"quix": "Quix Streams", "bytewax": "Bytewax     "}
PEERS_PYTHON = ROOT / ".venv-peers/bin/python"
WORKS = {"nothing": "empty", "count": "count and sum per card"}

STOCK = """
import asyncio, os, sys, time
import faust
from core.privacy.masking import Privacy
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


def stock_rate(place: Setting, count: int) -> float:
    with tempfile.NamedTemporaryFile("w", suffix=".py") as script:
        script.write(STOCK)
        script.flush()
        return agent_rate([script.name, place.cluster.bootstrap, str(count)])


def agent_rate(script: list[str]) -> float:
    """Run a Faust app in its own process and return the rate that it prints at the end."""
    return printed_rate([sys.executable, *script, "worker"])


def peer_rate(place: Setting, peer: str, work: str) -> float:
    """Run another stream processor over the whole topic, in its own environment."""
    return printed_rate([str(PEERS_PYTHON), "benchmarks/peers.py", peer, work, place.cluster.bootstrap, str(place.count)])


def printed_rate(command: list[str]) -> float:
    """Run a command on the worker's core and return the number that it prints last."""
    done = subprocess.run(
        ["taskset", "-c", str(WORKER_CORE), *command], check=True, capture_output=True, text=True, timeout=300, cwd=ROOT
    )
    return float(done.stdout.split()[-1])


async def bare_rate(place: Setting) -> float:
    """Measure a loop that decodes, computes all features and scores: no stages, no outputs, no checkpoints."""
    bundle = load_bundle(place.bundle)
    engine = FeatureEngine(bundle.spec)
    done, began = 0, 0.0
    async with AIOKafkaConsumer(
        TRANSACTIONS, bootstrap_servers=place.cluster.bootstrap, group_id=None, auto_offset_reset="earliest"
    ) as consumer:
        while done < place.count:
            for records in (await consumer.getmany(timeout_ms=1000, max_records=2_000)).values():
                decoded = decode_transactions([record.value for record in records], Privacy())
                columns = engine.columns([transaction for transaction in decoded if isinstance(transaction, Transaction)])
                X = engine.update(columns).X
                score(bundle, X, doubts_of(columns))
                began = began or time.perf_counter()
                done += len(records)
    return done / (time.perf_counter() - began)


class Measured(NamedTuple):
    """
    Decided transactions per second; CPU seconds of workers and broker per million transactions; seconds by stage and activity;
    memory of the largest worker, MB.
    """

    rate: float
    workers: float
    broker: float
    spent: dict[str, float]
    memory: float


def worker_rate(place: Setting, cores: list[int]) -> Measured:
    """Measure one worker on each of ``cores`` over the whole topic."""
    place.load()
    with ExitStack() as stack:
        workers = [stack.enter_context(Worker("score", place.kafka, bundle=place.bundle, ready=False)) for _ in cores]
        for worker, core in zip(workers, cores, strict=True):
            pinned(worker.process.pid, core)
        processes = [[worker.process.pid for worker in workers], [place.cluster.nodes[0].process.pid]]
        first = None
        while True:
            time.sleep(0.5)
            try:
                done = sum(metric(worker.port, "whyflag_decisions_total") for worker in workers)
            except OSError:
                continue  # the worker is not listening yet
            now = time.perf_counter()
            if first is None and done > WARM_UP:
                first = (now, done, [sum(map(cpu_seconds, pids)) for pids in processes])
            if done >= place.count and first is not None:
                break
        spent = {
            f"{stage} {kind}": sum(metric(w.port, f'whyflag_{kind}_seconds_sum{{stage="{stage}"}}') for w in workers)
            for stage in ("profile", "score")
            for kind in ("batch", "ack", "checkpoint")
        }
        count = done - first[1]
        used = [(sum(map(cpu_seconds, pids)) - before) / count * 1e6 for pids, before in zip(processes, first[2], strict=True)]
        return Measured(count / (now - first[0]), *used, spent, max(worker.memory for worker in workers))


def main() -> None:
    if not PEERS_PYTHON.exists():
        sys.exit("Quix Streams and Bytewax are not installed: run `make .venv-peers/.installed` once, or `make bench`")
    with setting(N) as place:
        place.load()
        stock = stock_rate(place, 30_000)
        print(f"stock Faust agent, empty body           {stock:>8,.0f} transactions/s", flush=True)
        each = agent_rate(["-m", "benchmarks.baseline", place.cluster.bootstrap, "5000", str(place.bundle)])
        print(f"stock Faust agent, the same work, tables {each:>7,.0f} transactions/s", flush=True)
        for peer, work in product(PEERS, WORKS):
            print(f"{PEERS[peer]}, {WORKS[work]:<24} {peer_rate(place, peer, work):>8,.0f} transactions/s", flush=True)
        os.sched_setaffinity(0, {WORKER_CORE})
        bare = asyncio.run(bare_rate(place))
        os.sched_setaffinity(0, {OTHER_CORE})
        print(f"bare aiokafka loop, decode and score    {bare:>8,.0f} transactions/s", flush=True)
        for name, cores in (
            ("one worker on one core", [WORKER_CORE]),
            ("two workers, one beside Kafka", [WORKER_CORE, OTHER_CORE]),
        ):
            found = worker_rate(place, cores)
            print(
                f"whyflag, {name:<30} {found.rate:>8,.0f} transactions/s, {found.rate / stock:.1f} x stock, "
                f"{found.rate / each:.0f} x the same work, {found.rate / bare:.2f} x the bare loop, {found.memory:,.0f} MB"
            )
            print(f"  CPU seconds per million transactions: {found.workers:.1f} workers, {found.broker:.1f} broker")
            for what, seconds in found.spent.items():
                print(f"  {what:<20} {seconds / place.count * 1e6:6.1f} µs per transaction", flush=True)
        for topic, size in sorted(place.written().items()):
            if not topic.startswith("_"):
                print(f"  {topic:<20} {size / place.count:6.0f} bytes per transaction on the broker's disk")


if __name__ == "__main__":
    main()
