"""
Watchdog that ends the worker when the stream stalls, and updates the gauges that need Kafka's end offsets.

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
from streams.gauges import Gauges
from streams.kafka.connection import Connection
from streams.operator import Operator
from streams.source import Place

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
        gauges: Gauges | None = None,
    ) -> None:
        """
        ``failed`` is called when a partition has waiting records but has made no progress for ``stalled_seconds``. ``answered``
        is called after each answer from Kafka.
        """
        self._connection, self._operators = connection, operators
        self._stalled_seconds, self._failed = stalled_seconds, failed
        self._answered, self._gauges = answered, gauges
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
        # query Kafka even without partitions, because ``run`` then records that Kafka has answered
        asked = [place for one in self._operators for place in one.positions] or [(self._operators[0].stage.topics[0], 0)]
        names = {TopicPartition(self._connection.name(topic), partition): (topic, partition) for topic, partition in asked}
        ends = {names[place]: end for place, end in (await consumer.end_offsets(list(names))).items()}
        for operator in self._operators:
            for place, position in operator.positions.items():
                waiting = ends.setdefault(place, position) - position  # a partition that was assigned meanwhile counts as read
                before, since = self._progress.get(place, (-1, now))
                progress[place] = (position, since if waiting > 0 and position == before else now)
                if now - progress[place][1] >= self._stalled_seconds:
                    self._failed(
                        StateError(
                            f"{waiting} records wait in {place[0]}/{place[1]} and none was processed for {self._stalled_seconds:.0f} s"
                        )
                    )
        self._progress = progress
        if self._gauges:
            self._gauges.update(ends)
