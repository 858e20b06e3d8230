"""
The operator runs one stage over its chunks. A worker has one operator per stage.

Chunks that were fetched together form batches of about 1 MiB; without a checkpoint log, each chunk is a batch. The steps of a
batch, numbered in ``handle`` and ``_process``:

1. compare each chunk with its partition's position: drop replayed records, and read again from the position if records are
   missing;
2. let the stage compute the outputs of all chunks and update its state;
3. queue the outputs for Kafka; only a few batches may have unacknowledged outputs at once;
4. advance the positions;
5. start a checkpoint of each partition whose epoch is over (``partition.py``).

Any error ends the process without acknowledging the input. The records are then read again with the same state as the first
time, and produce the same outputs with the same ids.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic, perf_counter, time

from aiokafka.errors import KafkaError, KafkaTimeoutError

from core.metrics import ACK_SECONDS, BATCH_SECONDS, RECORDS
from streams.kafka.publishing import Delivery, Latency, Publisher
from streams.kafka.transport import RecordChunk
from streams.partition import Partition
from streams.recovery import Logs
from streams.source import Place, Source
from streams.stages.stage import Chunk, Stage, StatefulStage

logger = logging.getLogger(__name__)

_TICK_SECONDS = 0.1  # longest delay of a checkpoint when no more records arrive
# Batches whose outputs may await acknowledgement. With only one, the CPU would be idle while Kafka writes; many
# would use memory without being faster.
_BATCHES_AHEAD = 4
# While Kafka is away, partitions cannot be opened. The worker retries for as long as it also waits for an acknowledgement.
_AWAY_SECONDS = 120.0
_RETRY_SECONDS = 1.0
_RESTORES_AT_ONCE = 4  # each uses a connection and some megabytes for the log


class Operator:
    """Runs one stage of a worker. A lock makes its chunks, checkpoints and rebalances take turns."""

    def __init__(self, stage: Stage, publisher: Publisher, logs: Logs, failed: Callable[[BaseException], None]) -> None:
        """``failed`` ends the process."""
        self.stage = stage
        self._publisher, self._logs, self._failed = publisher, logs, failed
        self._turn = asyncio.Lock()
        self._partitions: dict[int, Partition] = {}
        self._deliveries: deque[Delivery] = deque()  # of the latest batches, in order
        self._releasing = asyncio.Event()  # the partitions are to be released
        self._stopped = False

    @property
    def keeps_checkpoints(self) -> bool:
        """Whether the stage keeps its state and positions in a checkpoint log."""
        return self._logs.checkpointed

    @property
    def positions(self) -> dict[Place, int]:
        """Next offset to process, for each partition that is owned and restored."""
        return {(topic, one.number): offset for one in self._active() for topic, offset in one.positions.items()}

    @property
    def written(self) -> dict[Place, int]:
        """When the last processed record of each partition was written to Kafka, epoch ms."""
        return {(topic, one.number): written for one in self._active() for topic, written in one.written.items()}

    def checkpoint_age(self, now: float) -> float:
        """Return the age of the oldest processed record that no checkpoint holds; 0 if there is none."""
        return max((one.age(now) for one in self._active()), default=0.0)

    def _active(self) -> list[Partition]:
        return [one for one in self._partitions.values() if one.active]

    # -- assignment -----------------------------------------------------------------------------------------------------------

    async def open(self, assigned: set[Place], source: Source) -> bool:
        """
        Take over the assigned partitions: drop the state of all others, restore the new ones, and read on from their positions.

        Return False if the partitions are to be released again before Kafka has answered.

        Raises:
            StateError: if a partition's log cannot be used.
            KafkaError: if no broker answers for two minutes, or at once if Kafka answers with an error.
        """
        async with self._turn:
            own = {place for place in assigned if place[0] in self.stage.topics}
            away = None  # since when Kafka does not answer
            while not self._releasing.is_set():
                try:
                    await self._take_over(own, source)
                except KafkaError as error:
                    away = away or monotonic()
                    if not _is_outage(error) or monotonic() - away >= _AWAY_SECONDS:
                        raise
                    logger.warning("%s: the partitions cannot be opened yet, Kafka does not answer: %r", self.stage.name, error)
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._releasing.wait(), _RETRY_SECONDS)
                else:
                    for partition in self._partitions.values():
                        partition.activate()
                    return not self._releasing.is_set()
            return False

    async def _take_over(self, own: set[Place], source: Source) -> None:
        numbers = {partition for _, partition in own}
        held = set(self.stage.states) if isinstance(self.stage, StatefulStage) else set()
        for number in (held | self._partitions.keys()) - numbers:
            self._forget_state(number)
            if (partition := self._partitions.pop(number, None)) is not None:
                await partition.close()
        await self._logs.check(own)
        at_once = asyncio.Semaphore(_RESTORES_AT_ONCE)
        topics = {number: {topic for topic, partition in own if partition == number} for number in numbers}
        # every restore ends, so that none is cancelled within a transaction
        ended = await asyncio.gather(
            *(self._restore(number, topics[number], source, at_once) for number in numbers), return_exceptions=True
        )
        if errors := [error for error in ended if error is not None]:
            raise next((error for error in errors if not _is_outage(error)), errors[0])

    async def _restore(self, number: int, topics: set[str], source: Source, at_once: asyncio.Semaphore) -> None:
        """Resume or restore a partition, unless an earlier attempt has done so. If it fails, the next attempt begins anew."""
        async with at_once:
            held = self._partitions.get(number)
            if held is not None:
                if held.claimed or await held.resume(topics):
                    return
                self._forget_state(number)
                await self._partitions.pop(number).close()
            partition = Partition(self.stage, number, self._logs.create(number), source, self._failed)
            try:
                await partition.restore(topics)
            except BaseException:
                await partition.close()
                raise
            self._partitions[number] = partition

    def _forget_state(self, number: int) -> None:
        if isinstance(self.stage, StatefulStage):
            self.stage.states.pop(number, None)

    def interrupt(self) -> None:
        """End a pending ``open``: the partitions are about to be released."""
        self._releasing.set()

    async def revoke(self) -> None:
        """Release all partitions: finish the current chunk, write a last checkpoint, and process nothing more."""
        self.interrupt()
        try:
            async with self._turn:
                await self._release()
        finally:
            if not self._stopped:
                self._releasing.clear()

    async def stop(self) -> None:
        """Release all partitions for good, and close the stage and its logs."""
        self._stopped = True
        self.interrupt()
        async with self._turn:
            await self._release()
            await self.stage.stop()
            for partition in self._partitions.values():
                await partition.close()
            self._partitions.clear()

    async def _release(self) -> None:
        await asyncio.gather(*(partition.release() for partition in self._partitions.values() if partition.claimed))

    # -- chunks ---------------------------------------------------------------------------------------------------------------

    async def handle(self, chunk: RecordChunk) -> None:
        """
        Process a chunk together with the other chunks of its group.

        When ``handle`` is later called with one of those, it returns at once.

        Raises:
            WhyflagError or KafkaError: if the chunk could not be finished; the process must end.
        """
        async with self._turn:
            taken: list[tuple[RecordChunk, Partition, Chunk]] = []
            for one in chunk.group if self._logs.checkpointed else [chunk]:
                partition = self._partitions.get(one.partition)
                if one.done or partition is None or not partition.active or one.source not in partition.positions:
                    continue  # done, of the other stage, or read by the partition's new owner
                records = await partition.unprocessed(one, may_seek=one is chunk)  # 1
                if records is not None:
                    taken.append((one, partition, Chunk(one.source, one.partition, records)))
            if not taken:
                return
            batch = [new for _, _, new in taken if new.records]
            delivery = await self._process(batch) if batch else None
            for one, partition, new in taken:  # 4
                partition.advance(one, new.records, delivery, monotonic())
            await self._keep_up()
            await self._end_epochs({partition.number: partition for _, partition, _ in taken}.values())  # 5
            for one, _, _ in taken:
                one.done = True

    async def _process(self, batch: Sequence[Chunk]) -> Delivery:
        began = perf_counter()
        outputs = await self.stage.process(batch)  # 2
        computed = perf_counter()
        delivery = await self._publisher.send(outputs)  # 3
        latencies = [output.latency for output in outputs if output.latency is not None]
        delivery.add_done_callback(partial(self._delivered, computed, latencies))
        self._deliveries.append(delivery)
        for chunk in batch:
            RECORDS.labels(self.stage.name, chunk.topic).inc(len(chunk.records))
        BATCH_SECONDS.labels(self.stage.name).observe(computed - began)
        return delivery

    def _delivered(self, sent: float, latencies: list[Latency], delivery: asyncio.Future[None]) -> None:
        if delivery.cancelled():
            return
        if error := delivery.exception():
            self._failed(error)
            return
        now = time() * 1000
        for histogram, written in latencies:
            histogram.observe((now - written) / 1000)
        ACK_SECONDS.labels(self.stage.name).observe(perf_counter() - sent)

    async def _keep_up(self) -> None:
        """Wait until only a few batches have unacknowledged outputs."""
        while self._deliveries and (len(self._deliveries) > _BATCHES_AHEAD or self._deliveries[0].done()):
            await asyncio.shield(self._deliveries[0])
            self._deliveries.popleft()

    # -- maintenance ----------------------------------------------------------------------------------------------------------

    async def run_maintenance(self) -> None:
        """End epochs that receive no more records, and read again records that were fetched but lost. Runs until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            if not self._turn.locked():
                for partition in self._active():
                    partition.reread_lost(monotonic())
            if any(one.epoch_ended(monotonic()) for one in self._active()):
                async with self._turn:
                    await self._end_epochs(self._active())

    async def _end_epochs(self, partitions: Iterable[Partition]) -> None:
        """Start a checkpoint of each partition whose epoch is over."""
        for partition in sorted(partitions, key=lambda one: one.number):
            if partition.epoch_ended(monotonic()):
                await partition.commit(monotonic())


def _is_outage(error: BaseException) -> bool:
    """Return whether an error says that Kafka does not answer."""
    # aiokafka raises a plain KafkaError if no known broker describes the cluster
    return isinstance(error, KafkaError) and (error.retriable or type(error) in (KafkaError, KafkaTimeoutError))
