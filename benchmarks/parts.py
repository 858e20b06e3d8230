"""
Benchmark of the parts of the scoring path, in batches of 1,000 in one process without Kafka.

The figures are µs per transaction, the best of five laps.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from benchmarks.setting import trained_world, transactions_in
from core.decoding import decode_transactions
from core.messages import encode
from core.privacy.masking import Privacy
from models.bundles.bundle import load_bundle
from models.features.columns import TransactionColumns
from models.features.engine import RECENT, EntityEngine, FeatureEngine
from models.novelty import novelty
from models.scorer import decisions, payments, score
from streams.profiled import decode_profiled, encode_rows, joined, profiled_rows

N, BATCH = 20_000, 1_000


def timed(name: str, lap: Callable[[], object]) -> None:
    best = min(_seconds(lap) for _ in range(5))
    print(f"{name:<44} {best / N * 1e6:6.2f} µs")


def _seconds(lap: Callable[[], object]) -> float:
    began = time.perf_counter()
    lap()
    return time.perf_counter() - began


def computed(engine: EntityEngine, columns: list[TransactionColumns]) -> None:
    for column in columns:
        engine.update(column)


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}; {N:,} transactions in batches of {BATCH:,}")
    with tempfile.TemporaryDirectory(prefix="whyflag-bench-") as name:
        trained_world(Path(name), 100_000)
        bundle = load_bundle(Path(name) / "bundle")
        every = list(islice(transactions_in(Path(name)), N))
    spec, starts = bundle.spec, range(0, N, BATCH)
    batches = [every[at : at + BATCH] for at in starts]
    raws = [[encode(transaction) for transaction in batch] for batch in batches]
    engine = FeatureEngine(spec)
    columns = [engine.columns(batch) for batch in batches]
    priced = np.zeros(BATCH, np.uint8)
    X = [engine.update(column)[0] for column in columns]
    card = EntityEngine(spec, spec.entities[0])
    profiled = [
        profiled_rows(
            spec.version, batch, [0] * len(batch), range(len(batch)), range(len(batch)), column, card.update(column, RECENT)
        )
        for batch, column in zip(batches, columns, strict=True)
    ]
    between = [list(encode_rows(rows)) for rows in profiled]
    scores = [score(bundle, x, priced) for x in X]
    decided = [decision for batch, s in zip(batches, scores, strict=True) for decision in decisions(payments(batch), s)]

    timed("decode, check and make private", lambda: [decode_transactions(raw, Privacy()) for raw in raws])
    timed("convert messages to columns", lambda: [engine.columns(batch) for batch in batches])
    for entity in spec.entities:
        timed(f"features of the {entity.name}", lambda entity=entity: computed(EntityEngine(spec, entity), columns))
    timed("encode the record between stages", lambda: [list(encode_rows(rows)) for rows in profiled])
    timed("decode the record between stages", lambda: [joined([decode_profiled(raw) for raw in raws]) for raws in between])
    timed("score: XGBoost, calibration, novelty, policy", lambda: [score(bundle, x, priced) for x in X])
    timed("  of which novelty", lambda: [novelty(bundle.forest, x) for x in X])
    timed("decision messages", lambda: [decisions(payments(batch), s) for batch, s in zip(batches, scores, strict=True)])
    timed("encode decisions", lambda: [encode(decision) for decision in decided])


if __name__ == "__main__":
    main()
