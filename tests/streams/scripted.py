"""
Kafka in memory, for tests of the operator: topics, consumer positions and checkpoint logs, with a crash at any step on purpose.

What is written survives a crash; the process that wrote it does not. Steps are counted: just before and just after each send of outputs and
each commit of a checkpoint.
"""

from collections import defaultdict
from types import SimpleNamespace

from faust.types import TP
from msgspec import structs

from core.errors import DeliveryError
from streams.checkpoints import Checkpoint
from streams.kafka.publishing import Delivery, partition_of
from streams.kafka.transport import OffsetRange, RecordChunk, group_chunks

WRITTEN_AT = 4_000_000_000_000  # later than any event


class Crash(BaseException):
    """The process dies here."""


class Kafka:
    """Topics with as many partitions each, and the rows and marker of each checkpoint log."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self.topics: dict[tuple[str, int], list[SimpleNamespace]] = defaultdict(list)
        self.logs: dict[tuple[str, int], tuple[dict[bytes, bytes], Checkpoint | None]] = {}
        self.owners: dict[tuple[str, int], object] = {}
        self.steps = 0

    def append(self, topic: str, partition: int, key: bytes, value: bytes) -> None:
        log = self.topics[topic, partition]
        log.append(
            SimpleNamespace(
                topic=topic, partition=partition, offset=len(log), key=key, value=value, timestamp=WRITTEN_AT, timestamp_type=1
            )
        )

    def values(self, topic: str) -> list[bytes]:
        return [record.value for partition in range(self.partitions) for record in self.topics[topic, partition]]


class Process:
    """One life of a worker process: all that it does to Kafka goes through here, and stops at step ``dies_at``."""

    def __init__(self, kafka: Kafka, dies_at: int | None = None) -> None:
        self.kafka, self._dies_at = kafka, dies_at
        self.dead = False
        self.errors: list[BaseException] = []
        self.outages: list[tuple[str, BaseException]] = []  # calls that fail, in order, each once

    def step(self) -> None:
        """Count a step, and die if it is the last one."""
        self.kafka.steps += 1
        if self.dead or self.kafka.steps == self._dies_at:
            self.dead = True
            raise Crash

    def meet(self, call: str) -> None:
        """Raise the next error if it is one of this call."""
        if self.outages and self.outages[0][0] == call:
            raise self.outages.pop(0)[1]

    def failed(self, error: BaseException) -> None:
        self.errors.append(error)

    # -- what a publisher does --------------------------------------------------------------------------------------------

    async def counts(self, topics) -> dict[str, int]:
        self.meet("counts")
        return dict.fromkeys(topics, self.kafka.partitions)

    async def partitions(self, topic: str) -> int:
        return self.kafka.partitions

    async def send(self, outputs) -> Delivery:
        self.step()
        for output in outputs:
            for key, value in zip(output.keys, output.values, strict=True):
                partition = partition_of(key, self.kafka.partitions) if output.partition is None else output.partition
                self.kafka.append(output.topic, partition, key, value)
        self.step()
        delivery = Delivery()
        delivery.arrived()
        return delivery


class Log:
    """A checkpoint log: a write is seen whole or not at all, and only the last owner may write."""

    def __init__(self, process: Process, topic: str, partition: int) -> None:
        self._process, self._place = process, (topic, partition)
        self._written: Checkpoint | None = None
        self.closed = 0

    async def claim(self) -> None:
        self._process.meet("claim")
        self._process.kafka.owners[self._place] = self

    async def close(self) -> None:
        self.closed += 1

    async def still_owned(self) -> bool:
        written, self._written = self._written, None
        self._process.meet("still_owned")
        if written is None or self._process.kafka.owners[self._place] is not self:
            return False
        await self.write([], structs.replace(written, clean=False))
        return True

    async def read(self, load) -> Checkpoint | None:
        self._process.meet("read")
        rows, checkpoint = self._process.kafka.logs.get(self._place, ({}, None))
        load(list(rows.items()))
        return checkpoint

    async def write(self, rows, checkpoint: Checkpoint) -> None:
        if self._process.kafka.owners[self._place] is not self:
            raise DeliveryError("another process has claimed the log")
        self._process.step()
        held = dict(self._process.kafka.logs.get(self._place, ({}, None))[0])
        for key, row in rows:
            if row is None:
                held.pop(key, None)
            else:
                held[key] = row
        self._process.kafka.logs[self._place] = (held, checkpoint)
        self._written = checkpoint
        self._process.step()


class Source:
    """A consumer of some topics: fetches chunks of at most ``size`` records from where the operator asked to read."""

    def __init__(self, process: Process, topics: tuple[str, ...], size: int) -> None:
        self._process, self._kafka, self._topics, self._size = process, process.kafka, topics, size
        self.group: dict[tuple[str, int], int] = {}  # offsets that the group has committed
        self._positions: dict[tuple[str, int], int] = {}
        self._fetched: list[RecordChunk] = []

    async def bounds(self, places):
        self._process.meet("bounds")
        return {place: OffsetRange(0, len(self._kafka.topics[place])) for place in places}

    async def committed(self, places):
        self._process.meet("committed")
        return {place: self.group[place] for place in places if place in self.group}

    def read_from(self, place, offset) -> None:
        self._positions[place] = offset
        self._fetched = [chunk for chunk in self._fetched if (chunk.topic, chunk.partition) != place]

    def reached(self, place) -> int:
        return self._positions[place]

    def next_chunk(self) -> RecordChunk | None:
        """Return the next chunk of the last fetch, or of a new one; None when all is read."""
        if not self._fetched:
            self._fetched = [chunk for place in sorted(self._positions) if (chunk := self._fetch(place))]
            group_chunks(self._fetched)
        return self._fetched.pop(0) if self._fetched else None

    def _fetch(self, place) -> RecordChunk | None:
        begin = self._positions[place]
        records = self._kafka.topics[place][begin : begin + self._size]
        self._positions[place] = begin + len(records)
        return RecordChunk(TP(*place), records, begin) if records else None
