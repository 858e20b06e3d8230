"""
Benchmark of the feature engine with the default spec on one core: the whole history at once, and in batches.

Run it with ``make bench``. Times hold only for this machine at this moment, so compare times of one run only. Cycles can be compared
across machines more fairly. They are estimated: time multiplied by the clock rate, which is measured with a loop of dependent
instructions, because virtual machines often have no cycle counters.
"""

import platform
import time
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numba import njit

from models.features.columns import TransactionColumns
from models.features.engine import EntityEngine, FeatureEngine
from models.features.spec import Entity, FeatureSpec, default_spec
from training.data.conform import SCHEMA
from training.data.dataset import columns_of
from training.data.mapping import FIELDS
from training.simulator import SimulationSpec, simulate

_CYCLES_PER_STEP = 6  # three shifts and three exclusive ors, each of which needs the result of the one before
_STEPS = 50_000_000


@njit
def _xorshift(steps):
    """Return the number after so many steps of Marsaglia's 64-bit xorshift generator."""
    x = np.uint64(88_172_645_463_325_252)
    for _ in range(steps):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
    return x


def clock_hz() -> float:
    """Return the rate of this core's clock."""
    _xorshift(1)
    begin = time.perf_counter()
    _xorshift(_STEPS)
    return _STEPS * _CYCLES_PER_STEP / (time.perf_counter() - begin)


class Spent(NamedTuple):
    """Seconds and clock cycles."""

    seconds: float
    cycles: float


def measured(spec: FeatureSpec, entity: Entity, columns: TransactionColumns, size: int) -> Spent:
    """Compute one entity's features in batches of a size."""
    engine, hertz = EntityEngine(spec, entity), clock_hz()
    begin = time.perf_counter()
    for at in range(0, len(columns.event_time), size):
        engine.update(columns.rows(slice(at, at + size)))
    seconds = time.perf_counter() - begin
    return Spent(seconds, seconds * hertz)


def main() -> None:
    """Print transactions per second and cycles per transaction, for both entities together and for each."""
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
    print(f"{'':<33} {'transactions/s':>14} {'µs each':>8} {'cycles each':>12}")
    for name, size in (("whole history at once", n), ("batches of 2,000", 2_000), ("batches of 256", 256)):
        spent = {entity.name: measured(spec, entity, columns, size) for entity in spec.entities}
        total = Spent(*map(sum, zip(*spent.values(), strict=True)))
        for part, (seconds, cycles) in {**spent, "both": total}.items():
            print(f"{f'{name}, {part}':<33} {n / seconds:14,.0f} {seconds / n * 1e6:8.2f} {cycles / n:12,.0f}", flush=True)


if __name__ == "__main__":
    main()
