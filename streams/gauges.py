"""Gauges of a worker that are measured every few seconds: lag, watermarks, checkpoint age and state."""

from collections.abc import Mapping, Sequence
from functools import partial
from time import monotonic

from core.clock import Clock
from core.metrics import (
    CHECKPOINT_AGE,
    KEYS,
    LAG_RECORDS,
    LAG_SECONDS,
    PARTITIONS,
    STATE_BYTES,
    WATERMARK_DELAY,
)
from streams.operator import Operator
from streams.source import Place
from streams.stages.stage import StatefulStage


class Gauges:
    """Measures the operators of a worker. Partitions that have moved to another worker are removed."""

    def __init__(self, operators: Sequence[Operator], clock: Clock) -> None:
        self._operators, self._clock = operators, clock
        self._caught_up: dict[Place, int] = {}  # when no record of the partition was waiting, epoch ms

    def update(self, ends: Mapping[Place, int]) -> None:
        """Set all gauges. ``ends`` holds the end offsets of the owned partitions in Kafka."""
        for gauge in (LAG_RECORDS, LAG_SECONDS, WATERMARK_DELAY, CHECKPOINT_AGE):
            gauge.clear()
        now = self._clock.now_ms()
        for operator in self._operators:
            name = operator.stage.name
            positions, written = operator.positions, operator.written
            PARTITIONS.labels(name).set(len({partition for _, partition in positions}))
            if operator.keeps_checkpoints and positions:  # measured at each scrape, so that it grows while Kafka is away
                CHECKPOINT_AGE.labels(name).set_function(partial(_checkpoint_age, operator))
            for place, position in positions.items():
                labels = (name, place[0], str(place[1]))
                waiting = max(0, ends[place] - position)
                LAG_RECORDS.labels(*labels).set(waiting)
                if not waiting:
                    self._caught_up[place] = now
                # the next record was written after the last processed one, and after the last time at which none was waiting
                since = max(self._caught_up.get(place, 0), written.get(place, 0))
                if since:
                    LAG_SECONDS.labels(*labels).set(max(0, now - since) / 1000 if waiting else 0)
            if isinstance(operator.stage, StatefulStage):
                self._update_state(operator.stage, now)

    @staticmethod
    def _update_state(stage: StatefulStage, now: int) -> None:
        name, states = stage.name, stage.states
        KEYS.labels(name).set(sum(state.keys for state in states.values()))
        STATE_BYTES.labels(name).set(sum(state.nbytes for state in states.values()))
        for partition, state in states.items():
            if (newest := state.watermark) is not None:
                WATERMARK_DELAY.labels(name, str(partition)).set((now - newest) / 1000)


def _checkpoint_age(operator: Operator) -> float:
    return operator.checkpoint_age(monotonic())
