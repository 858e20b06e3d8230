"""
Leaves when the stream stands still.

A Faust consumer can stop silently after a broker restart. Nobody else would notice: the loop turns, the group is stable, and records
wait. The watchdog asks Kafka itself how far the topics go, over a connection of its own.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from core.errors import StateError
from core.metrics import LAG
from streams.operator import Operator, Place

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


class Watchdog:
    """Compares what the operators have processed with what there is."""

    def __init__(
        self, bootstrap: str, operators: list[Operator], stalled_seconds: float, failed: Callable[[BaseException], None]
    ) -> None:
        """``failed`` is called when records waited and none was processed for ``stalled_seconds``."""
        self._bootstrap, self._operators = bootstrap, operators
        self._stalled_seconds, self._failed = stalled_seconds, failed
        self._seen: dict[Place, tuple[int, float]] = {}

    async def run(self) -> None:
        """Looks until cancelled. A broker that does not answer is nobody's standstill: the clock starts again."""
        while True:
            try:
                async with AIOKafkaConsumer(bootstrap_servers=self._bootstrap, group_id=None) as consumer:
                    while True:
                        await asyncio.sleep(_LOOK_SECONDS)
                        await self._look(consumer)
            except (KafkaError, OSError):
                self._seen.clear()
                await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        now, seen = monotonic(), {}
        for operator in self._operators:
            positions = operator.positions
            ends = await consumer.end_offsets([TopicPartition(*place) for place in positions]) if positions else {}
            lag = 0
            for place, position in positions.items():
                waiting = ends[TopicPartition(*place)] - position
                lag += max(0, waiting)
                before, since = self._seen.get(place, (-1, now))
                seen[place] = (position, since if waiting > 0 and position == before else now)
                if now - seen[place][1] >= self._stalled_seconds:
                    self._failed(
                        StateError(
                            f"{waiting} records wait in {place[0]}/{place[1]} and none was processed for {self._stalled_seconds:.0f} s"
                        )
                    )
            LAG.labels(operator.stage.name).set(lag)
        self._seen = seen
