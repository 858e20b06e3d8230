"""An entity of a spec in the form that the kernels read: arrays of records and numbers."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from core.clock import duration_ms
from core.money import minor_per_major
from models.features.ops import NORMAL_OPS, OPERATIONS, Op, StateKind
from models.features.spec import Entity, FeatureSpec, op_of

Records = npt.NDArray[np.void]

FEATURE = np.dtype([("op", np.int64), ("source", np.int64), ("window", np.int64)])
EXACT_WINDOW = np.dtype([("length", np.int64), ("merchants", np.bool_), ("countries", np.bool_)])
BUCKETED_WINDOW = np.dtype([("length", np.int64), ("level", np.int64), ("buckets", np.int64)])
LEVEL = np.dtype([("resolution", np.int64), ("kept", np.int64)])


class ExactPlan(NamedTuple):
    """
    An entity with exact state. Times are in ms, amounts in minor units of the spec's currency.

    ``windows`` are records of ``EXACT_WINDOW``, from short to long. A window's ``merchants`` is true if a feature of this or a
    longer window counts distinct merchants; ``countries`` likewise. ``features`` are records of ``FEATURE``. ``room`` is the
    number of rows of the pool that one event may need.
    """

    windows: Records
    features: Records
    retention: int
    delay: int
    lateness: int
    history: int
    room: int
    major: float
    marks_unusual: bool
    uses_normal: bool
    uses_frauds: bool
    uses_legitimate: bool
    normal_amount: int
    normal_weight: float
    unusual_ratio: float


class BucketedPlan(NamedTuple):
    """
    An entity with bucketed state. Times are in ms.

    ``windows`` are records of ``BUCKETED_WINDOW``: a window covers a number of buckets of one level. Level l keeps the newest
    ``levels[l].kept`` buckets of its resolution. ``features`` are records of ``FEATURE``. ``room`` is the number of rows of the
    pool that one event may need.
    """

    windows: Records
    levels: Records
    features: Records
    retention: int
    history: int
    room: int
    major: float
    fraud_prior: float
    prior_weight: float


def plan_of(spec: FeatureSpec, entity: Entity) -> ExactPlan | BucketedPlan:
    """Return the plan of an entity of a checked spec."""
    return _exact(spec, entity) if entity.state is StateKind.EXACT else _bucketed(spec, entity)


def _retention(entity: Entity) -> int:
    """Return how long a transaction may affect features, ms."""
    return duration_ms(entity.windows[-1].length) + duration_ms(entity.delay) + duration_ms(entity.lateness)


def _features(entity: Entity) -> Records:
    lengths = [window.length for window in entity.windows]
    rows = [
        (op_of(feature), OPERATIONS[op_of(feature)].source, lengths.index(feature.window) if feature.window else 0)
        for feature in entity.features
    ]
    return np.array(rows, FEATURE)


def _exact(spec: FeatureSpec, entity: Entity) -> ExactPlan:
    ops = {op_of(feature) for feature in entity.features}
    features = _features(entity)

    def needed(place: int, op: Op) -> bool:
        return bool((features["window"][features["op"] == op] >= place).any())

    windows = [
        (duration_ms(window.length), needed(place, Op.DISTINCT_MERCHANTS), needed(place, Op.DISTINCT_COUNTRIES))
        for place, window in enumerate(entity.windows)
    ]
    uses_normal = not ops.isdisjoint(NORMAL_OPS)
    return ExactPlan(
        windows=np.array(windows, EXACT_WINDOW),
        features=features,
        retention=_retention(entity),
        delay=duration_ms(entity.delay),
        lateness=duration_ms(entity.lateness),
        history=entity.history,
        room=8 * entity.history,  # one new block of transactions and one of reports, rounded up to powers of two
        major=float(minor_per_major(spec.currency)),
        marks_unusual=uses_normal and entity.name == spec.entities[0].name,
        uses_normal=uses_normal,
        uses_frauds=entity.labelled,
        uses_legitimate=Op.LAST_LEGITIMATE in ops,
        normal_amount=spec.normal_amount,
        normal_weight=spec.normal_weight,
        unusual_ratio=spec.unusual_ratio,
    )


def _bucketed(spec: FeatureSpec, entity: Entity) -> BucketedPlan:
    lengths = [duration_ms(window.length) for window in entity.windows]
    resolutions = [duration_ms(window.resolution) for window in entity.windows]
    levels = sorted(set(resolutions))
    spans = [length // resolution for length, resolution in zip(lengths, resolutions, strict=True)]
    kept = [1 + max(span for span, own in zip(spans, resolutions, strict=True) if own == level) for level in levels]
    windows = [
        (length, levels.index(resolution), span) for length, resolution, span in zip(lengths, resolutions, spans, strict=True)
    ]
    return BucketedPlan(
        windows=np.array(windows, BUCKETED_WINDOW),
        levels=np.array(list(zip(levels, kept, strict=True)), LEVEL),
        features=_features(entity),
        retention=_retention(entity),
        history=entity.history,
        room=8 * entity.history + 4 * sum(kept),  # the same, and one new block of buckets per level
        major=float(minor_per_major(spec.currency)),
        fraud_prior=spec.fraud_prior,
        prior_weight=spec.prior_weight,
    )
