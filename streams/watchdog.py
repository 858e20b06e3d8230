"""
Watchdog that ends the worker when the stream stalls.

A Faust consumer can stop silently after a broker restart. No other check detects this: the event loop runs and the group is
stable while records wait. The watchdog reads the topics' end offsets from Kafka, over its own connection.
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from core.errors import StateError
from core.metrics import LAG
from streams.kafka.connection import Connection
from streams.operator import Operator, Place

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 5.0


class Watchdog:
    """Compares the operators' positions with the end offsets in Kafka."""

    def __init__(
        self,
        connection: Connection,
        operators: list[Operator],
        stalled_seconds: float,
        failed: Callable[[BaseException], None],
        answered: Callable[[], None] = lambda: None,
    ) -> None:
        """
        ``failed`` is called when a partition has waiting records but has made no progress for ``stalled_seconds``. ``answered``
        is called after each answer from Kafka.
        """
        self._connection, self._operators = connection, operators
        self._stalled_seconds, self._failed = stalled_seconds, failed
        self._answered = answered
        self._progress: dict[Place, tuple[int, float]] = {}

    async def run(self) -> None:
        """Check every few seconds until cancelled. A broker outage resets the stall timer."""
        while True:
            try:
                async with AIOKafkaConsumer(**self._connection.aiokafka, group_id=None) as consumer:
                    while True:
                        await self._look(consumer)
                        self._answered()
                        await asyncio.sleep(_LOOK_SECONDS)
            except (KafkaError, OSError):
                self._progress.clear()
                await asyncio.sleep(_LOOK_SECONDS)

    async def _look(self, consumer: AIOKafkaConsumer) -> None:
        now, progress = monotonic(), {}
        for operator in self._operators:
            positions = operator.positions
            places = positions or dict.fromkeys(
                ((operator.stage.topics[0], 0),), 0
            )  # query Kafka even without partitions, because ``run`` then records that Kafka has answered
            ends = await consumer.end_offsets([TopicPartition(*place) for place in places])
            lag = 0
            for place, position in positions.items():
                waiting = ends[TopicPartition(*place)] - position
                lag += max(0, waiting)
                before, since = self._progress.get(place, (-1, now))
                progress[place] = (position, since if waiting > 0 and position == before else now)
                if now - progress[place][1] >= self._stalled_seconds:
                    self._failed(
                        StateError(
                            f"{waiting} records wait in {place[0]}/{place[1]} and none was processed for {self._stalled_seconds:.0f} s"
                        )
                    )
            LAG.labels(operator.stage.name).set(lag)
        self._progress = progress
