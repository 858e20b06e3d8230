"""aiokafka's transactional producer and its consumer over one partition in memory, as far as the checkpoint log uses them."""

from types import SimpleNamespace

from aiokafka.errors import ProducerFenced

CONNECTION = {"bootstrap_servers": "nowhere:9092"}
PRODUCER = CONNECTION | {
    "transactional_id": "whyflag-log-3",
    "transaction_timeout_ms": 120_000,
    "max_batch_size": 512 << 10,
    "max_request_size": 2 << 20,
    "request_timeout_ms": 120_000,
}
CONSUMER = CONNECTION | {
    "group_id": None,
    "isolation_level": "read_committed",
    "auto_offset_reset": "earliest",
    "fetch_max_wait_ms": 500,
    "max_partition_fetch_bytes": 8 << 20,
}
PLACE = ("log", 3)
LARGEST_BATCH = 2_000  # bytes; small, so that a checkpoint takes several


class Topic:
    """Records by offset; None is a transaction's own record. ``owners`` counts the producers that have begun."""

    def __init__(self) -> None:
        self.records: list[SimpleNamespace | None] = []
        self.owners = 0
        self.batches = 0

    def append(self, key: bytes | None, value: bytes | None, committed: bool = True) -> int:
        record = SimpleNamespace(key=key, value=value, offset=len(self.records), committed=committed)
        self.records.append(record)
        return record.offset

    def compact(self) -> None:
        """Keep the newest record of each key, as a broker does; offsets stay."""
        newest = {record.key: record.offset for record in self.records if record is not None}
        for offset, record in enumerate(self.records):
            if record is not None and newest[record.key] != offset:
                self.records[offset] = None


class Batch:
    def __init__(self) -> None:
        self.records: list[tuple[bytes, bytes | None]] = []
        self._bytes = 0

    def append(self, *, key, value, timestamp):
        size = len(key) + len(value or b"")
        if self.records and self._bytes + size > LARGEST_BATCH:
            return None
        self.records.append((key, value))
        self._bytes += size
        return True

    def record_count(self) -> int:
        return len(self.records)

    def close(self) -> None:
        pass


def clients(topic: Topic):
    """Classes that stand in for aiokafka's, bound to a topic."""

    class Producer:
        def __init__(self, **options) -> None:
            assert options == PRODUCER
            self._open: list[SimpleNamespace] | None = None
            self.client = SimpleNamespace(coordinator_lookup=None)

        async def start(self) -> None:
            topic.owners += 1
            self._epoch = topic.owners

        async def stop(self) -> None:
            self._epoch = -1

        async def begin_transaction(self) -> None:
            self._check()
            assert self._open is None
            self._open = []

        def create_batch(self) -> Batch:
            return Batch()

        async def send_batch(self, batch, name, partition):
            assert (name, partition) == ("log", 3)
            self._check()
            topic.batches += 1
            first = None
            for key, value in batch.records:
                offset = topic.append(key, value, committed=False)
                first = offset if first is None else first
                self._open.append(topic.records[offset])

            async def sent():
                return SimpleNamespace(offset=first)

            return sent()

        async def commit_transaction(self) -> None:
            self._check()
            for record in self._open:
                record.committed = True
            self._open = None
            topic.records.append(None)

        def _check(self) -> None:
            if self._epoch != topic.owners:
                raise ProducerFenced

    class Consumer:
        def __init__(self, **options) -> None:
            assert options == CONSUMER

        async def start(self) -> None:
            pass

        async def stop(self) -> None:
            pass

        def assign(self, places) -> None:
            ((self._tp),) = places

        async def beginning_offsets(self, places):
            return dict.fromkeys(places, 0)

        async def end_offsets(self, places):
            return dict.fromkeys(places, len(topic.records))

        def seek(self, place, offset) -> None:
            assert place == PLACE
            self._position = offset

        async def position(self, place) -> int:
            assert place == PLACE
            return self._position

        async def getmany(self, place, timeout_ms):
            assert (place, timeout_ms) == (PLACE, 500)
            some = topic.records[self._position : self._position + 7]
            self._position += len(some)
            return {place: [record for record in some if record is not None and record.committed]}

    return Producer, Consumer
