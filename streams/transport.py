"""
A Faust transport that hands an agent whole chunks instead of single messages.

A stock agent costs about 200 µs an event, most of it futures. Here the consumer yields one Faust message for each run of
records fetched from a partition: its value is the ``Chunk``, its offset that of the last record. Faust finds the transport by
the entry point ``whyflag`` in the group ``faust.transports``.
"""

from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

from faust.transport.drivers import aiokafka as driver
from faust.types import TP

# How long a broker may hold a fetch that finds nothing. A partition that was just read is not part of the fetch under way, so what
# arrives there waits for it to end: this is the worst case that fetching adds to the latency. An idle worker pays one small request
# to each broker in this time.
_FETCH_WAIT_MS = 20


class Chunk:
    """Records of one partition, in order. ``done`` is set once every output of theirs is acknowledged by Kafka."""

    # what Faust and aiokafka read of a record
    headers: Sequence[Any] = ()
    key = None
    checksum = None
    serialized_key_size = serialized_value_size = 0

    def __init__(self, tp: TP, records: list[Any]) -> None:
        last = records[-1]
        self.topic, self.partition, self.offset = tp.topic, tp.partition, last.offset
        self.timestamp, self.timestamp_type = last.timestamp, last.timestamp_type
        self.records = records
        self.done = False

    @property
    def value(self) -> "Chunk":
        """The chunk is its own value."""
        return self


class ConsumerThread(driver.AIOKafkaConsumerThread):
    """Faust's consumer thread with a shorter wait for data."""

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = _FETCH_WAIT_MS  # Faust fixes it at 1500 and has no setting; read when the consumer starts
        return consumer


class Consumer(driver.Consumer):
    """Faust's aiokafka consumer, with chunks for records and its own, stricter way to acknowledge them."""

    def _new_consumer_thread(self) -> ConsumerThread:
        return ConsumerThread(self, loop=self.loop, beacon=self.beacon)

    async def _getmany(self, active_partitions: Any, timeout: float) -> Mapping[TP, list[Any]]:
        fetched = await super()._getmany(active_partitions, timeout)
        return {tp: [Chunk(tp, records)] for tp, records in (fetched or {}).items() if records}

    def ack(self, message: Any) -> bool:
        """
        Acknowledge a chunk only if the operator finished it in this generation of the group.

        Faust acknowledges a message whenever its agent lets go of it: after an exception, on cancellation, and when it was
        skipped because the partition had moved on. None of these has been processed.
        """
        if not message.value.done or message.generation_id != self.app.consumer_generation_id:
            self._unacked_messages.discard(message)
            return False
        return bool(super().ack(message))

    async def _add_gap(self, tp: TP, offset_from: int, offset_to: int) -> None:
        """Chunks skip offsets by nature; there is nothing to remember about them."""

    def _new_offset(self, tp: TP) -> int | None:
        """What may be committed: behind the last finished chunk, because one agent finishes them in order."""
        acked = self._acked[tp]
        if not acked:
            return None
        offset = max(acked) + 1
        acked.clear()
        self._acked_index[tp].clear()
        return offset


class Transport(driver.Transport):
    """Faust's aiokafka transport with the consumer above."""

    Consumer = Consumer
    _topic_waiters: MutableMapping[str, Any]
