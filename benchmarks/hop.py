"""
Benchmark of the record between the stages: the format of ``streams.profiled`` beside Arrow IPC, with 5, 50 and 500 rows in a record.

The figures are µs and bytes per row; times are the best of five laps, both formats in turn. Both carry the same columns. Writing begins with
arrays and lists, as the first stage has them; reading ends with them, as the second stage needs them.
"""

import platform
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.setting import trained_world, transactions_in
from models.bundles.bundle import load_bundle
from models.features.engine import RECENT, EntityEngine
from streams.profiled import TEXTS, ProfiledRows, decode_profiled, encode_rows, profiled_rows

N = 10_000


def write_arrow(rows: ProfiledRows) -> bytes:
    arrays = [pa.array(own, pa.string()) for own in rows.texts]
    arrays += [pa.array(row) for row in rows.numbers]
    for block in (rows.features, rows.recent):
        arrays.append(pa.FixedSizeListArray.from_arrays(pa.array(block.ravel()), block.shape[1]))
    names = [*TEXTS, *(f"n{i}" for i in range(len(rows.numbers))), "features", "recent"]
    batch = pa.record_batch(arrays, names)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()


def read_arrow(record: bytes) -> ProfiledRows:
    (batch,) = pa.ipc.open_stream(record)
    columns, texts = batch.columns, len(TEXTS)
    blocks = [one.flatten().to_numpy().reshape(batch.num_rows, -1) for one in columns[-2:]]
    numbers = np.stack([one.to_numpy() for one in columns[texts:-2]])
    return ProfiledRows("", tuple(one.to_pylist() for one in columns[:texts]), numbers, *blocks)


def best(laps: list[Callable[[], object]]) -> list[float]:
    """Return the seconds of each lap: the best of five, the laps taking turns."""
    found = [float("inf")] * len(laps)
    for _ in range(5):
        for at, lap in enumerate(laps):
            began = time.perf_counter()
            lap()
            found[at] = min(found[at], time.perf_counter() - began)
    return found


def main() -> None:
    print(f"{platform.machine()}, Python {platform.python_version()}; {N:,} transactions")
    with tempfile.TemporaryDirectory(prefix="whyflag-bench-") as name:
        trained_world(Path(name), 20_000)
        spec = load_bundle(Path(name) / "bundle").spec
        every = list(islice(transactions_in(Path(name)), N))
    engine = EntityEngine(spec, spec.entities[0])
    columns = engine.columns(every)
    rows = profiled_rows(spec.version, every, [0] * N, range(N), range(N), columns, engine.update(columns, RECENT))
    print(f"{'rows in a record':>16} {'format':>12} {'write µs':>9} {'read µs':>9} {'bytes':>7}")
    for size in (5, 50, 500):
        parts = [rows.rows(np.arange(at, at + size)) for at in range(0, N, size)]
        own = [record for part in parts for record in encode_rows(part)]
        arrow = [write_arrow(part) for part in parts]
        times = best(
            [
                lambda parts=parts: [list(encode_rows(part)) for part in parts],
                lambda own=own: [decode_profiled(record) for record in own],
                lambda parts=parts: [write_arrow(part) for part in parts],
                lambda arrow=arrow: [read_arrow(record) for record in arrow],
            ]
        )
        for label, (write, read), records in (("MessagePack", times[:2], own), ("Arrow IPC", times[2:], arrow)):
            size_of = sum(map(len, records)) / N
            print(f"{size:>16} {label:>12} {write / N * 1e6:>9.2f} {read / N * 1e6:>9.2f} {size_of:>7.0f}")


if __name__ == "__main__":
    main()
