"""Benchmark of the feature engine with the default spec on one core: the whole history at once, and in the stream's batches.

Run it with ``make bench``. Figures hold only for this machine at this time; compare only figures of one run.
"""

import platform
import time

import pyarrow as pa

from models.features.engine import FeatureEngine
from models.features.spec import default_spec
from training.data.conform import SCHEMA
from training.data.dataset import columns_of
from training.data.mapping import FIELDS
from training.simulator import SimulationSpec, simulate


def main() -> None:
    """Print transactions per second."""
    table = simulate(SimulationSpec(transactions=1_000_000)).transactions
    n, spec = len(table), default_spec()
    full = pa.table(
        [table[f] if f in table.column_names else pa.nulls(n, SCHEMA.field(f).type) for f in FIELDS], names=list(FIELDS)
    )
    begin = time.perf_counter()
    columns = columns_of(full, spec)
    converted = time.perf_counter() - begin
    FeatureEngine(spec).update(columns.rows(slice(0, 1000)))  # compiles the kernels
    print(f"{platform.machine()}, Python {platform.python_version()}; {n:,} transactions, {len(spec.feature_names)} features")
    print(f"columns from a table     {n / converted:12,.0f} transactions/s")
    for name, size in (("whole history at once", n), ("batches of 256", 256)):
        engine = FeatureEngine(spec)
        begin = time.perf_counter()
        for at in range(0, n, size):
            engine.update(columns.rows(slice(at, at + size)))
        print(f"{name:<24} {n / (time.perf_counter() - begin):12,.0f} transactions/s")


if __name__ == "__main__":
    main()
