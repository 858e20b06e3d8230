"""Two kinds of metric that prometheus_client lacks: a histogram that takes arrays, and a gauge that is absent until it is set."""

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from prometheus_client.core import GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector


class ArrayHistogram(Collector):
    """A histogram without labels to which many values are added at once: prometheus_client needs a call for each value."""

    def __init__(self, name: str, meaning: str, bounds: Sequence[float]) -> None:
        """``bounds`` are the upper bounds of the buckets, ascending, without infinity."""
        self._name, self._meaning = name, meaning
        self._bounds = np.array(bounds, np.float64)
        self._counts = np.zeros(len(bounds) + 1, np.int64)
        self._sum = 0.0

    def observe(self, values: npt.ArrayLike) -> None:
        """Add one value, or values, float64 [n]. Negative ones count as 0: the clock that an event was dated by may be ahead."""
        array = np.maximum(np.atleast_1d(np.asarray(values, np.float64)), 0)
        self._counts += np.bincount(np.searchsorted(self._bounds, array), minlength=len(self._counts))
        self._sum += float(array.sum())

    def describe(self) -> Iterable[Metric]:
        """Yield the metric's name and meaning, without samples."""
        yield HistogramMetricFamily(self._name, self._meaning)

    def collect(self) -> Iterable[Metric]:
        """Yield the cumulative buckets and the sum."""
        bounds = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        buckets = list(zip(bounds, np.cumsum(self._counts).tolist(), strict=True))
        yield HistogramMetricFamily(self._name, self._meaning, buckets=buckets, sum_value=self._sum)


class LateGauge(Collector):
    """A gauge without labels that has no sample until its value is known. An ordinary gauge would show 0."""

    def __init__(self, name: str, meaning: str) -> None:
        self._name, self._meaning = name, meaning
        self._value: float | None = None

    def set(self, value: float | None) -> None:
        """Set the value; None removes the sample."""
        self._value = value

    def describe(self) -> Iterable[Metric]:
        """Yield the metric's name and meaning, without samples."""
        yield GaugeMetricFamily(self._name, self._meaning)

    def collect(self) -> Iterable[Metric]:
        """Yield the value if there is one."""
        if self._value is not None:
            yield GaugeMetricFamily(self._name, self._meaning, value=self._value)
