"""The consumer that feeds an operator, as the operator sees it."""

from collections.abc import Mapping
from typing import Protocol

from streams.kafka.transport import OffsetRange

Place = tuple[str, int]  # topic, partition


class Source(Protocol):
    """Interface of the consumer that feeds the operator."""

    async def bounds(self, places: list[Place]) -> Mapping[Place, OffsetRange]:
        """Return the current first and next offset of each partition in Kafka."""

    async def committed(self, places: list[Place]) -> Mapping[Place, int]:
        """Return the consumer group's committed offsets; partitions without one are left out."""

    def read_from(self, place: Place, offset: int) -> None:
        """Continue reading a partition at this offset, and drop the records already fetched from it."""

    def reached(self, place: Place) -> int:
        """Return the offset after the last chunk fetched from a partition."""
