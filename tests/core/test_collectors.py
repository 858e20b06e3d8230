"""Metrics: histograms that take arrays, gauges that are absent until they are set, and what a program serves at its start."""

import subprocess
import sys

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from core.collectors import ArrayHistogram, LateGauge
from core.metrics import Program


def served(*collectors):
    """The samples that Prometheus would read."""
    registry = CollectorRegistry()
    for collector in collectors:
        registry.register(collector)
    return {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(generate_latest(registry).decode())
        for sample in family.samples
    }


def test_a_histogram_counts_values_up_to_each_bound():
    histogram = ArrayHistogram("wait_seconds", "Waiting.", (0.1, 1))
    histogram.observe([0.05, 0.1, 0.2])
    histogram.observe(5)
    histogram.observe([])
    found = served(histogram)
    assert [found["wait_seconds_bucket", le] for le in ("0.1", "1", "+Inf")] == [2, 3, 4]
    assert found["wait_seconds_count", None] == 4
    assert found["wait_seconds_sum", None] == pytest.approx(5.35)


def test_a_time_from_a_clock_that_is_ahead_counts_as_none():
    histogram = ArrayHistogram("wait_seconds", "Waiting.", (0.1, 1))
    histogram.observe([-3.0, 0.5])
    found = served(histogram)
    assert (found["wait_seconds_bucket", "0.1"], found["wait_seconds_sum", None]) == (1, 0.5)


def test_a_gauge_is_absent_until_it_is_set_and_when_it_is_no_longer_known():
    gauge = LateGauge("drift", "Drift.")
    assert served(gauge) == {}
    gauge.set(0.0)
    assert served(gauge) == {("drift", None): 0.0}
    gauge.set(None)
    assert served(gauge) == {}


@pytest.mark.parametrize("program", Program)
def test_a_program_that_has_measured_nothing_shows_no_gauge_but_its_build(program):
    code = f"from core.metrics import *; print(generate_latest(registry_of(Program({program.value!r}))).decode())"
    done = subprocess.run(
        [sys.executable, "-c", f"from prometheus_client import generate_latest\n{code}"], capture_output=True, text=True
    )
    gauges = {
        sample.name
        for family in text_string_to_metric_families(done.stdout)
        if family.type == "gauge" and family.name.startswith("whyflag_") and not family.name.endswith("_created")  # of counters
        for sample in family.samples
    }
    assert gauges == {"whyflag_build_info"}
