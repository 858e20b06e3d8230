"""A partition's checkpoints and positions: when a commit waits, which decider it names, and what a loss of records means."""

import asyncio
import logging
from types import SimpleNamespace

import pytest
from faust.types import TP

from core.errors import DeliveryError, StateError
from core.topics import PROFILED
from streams.checkpoints import Checkpoint
from streams.kafka.publishing import Delivery
from streams.kafka.transport import OffsetRange, RecordChunk
from streams.partition import Partition
from streams.recovery import CheckpointLogs, MemoryLog
from streams.stages.stage import DecidingStage, StatefulStage


class State:
    keys, digest = 0, "none"

    def __init__(self):
        self.origins = {}

    def changed(self):
        return []

    def load(self, rows):
        pass


class Deciding(DecidingStage):
    name, topics, checkpoints, version = "score", (PROFILED,), "score-checkpoints", "spec-1"

    def __init__(self):
        super().__init__()
        self.current, self.newest = "old", "old"

    def new_state(self):
        return State()

    async def process(self, chunks):
        return []

    def decider_version(self, partition):
        return self.current

    def has_newer_decider(self, partition):
        return self.newest != self.current

    def use_newest_decider(self, partition):
        self.current = self.newest

    def restore_decider(self, partition, version, clean):
        self.current = self.newest if clean else version
        return True


class Profiling(StatefulStage):
    name, topics, checkpoints, version = "profile", (PROFILED,), "profile-checkpoints", "spec-1"

    def new_state(self):
        return State()

    async def process(self, chunks):
        return []


class KafkaLog:
    """A checkpoint log that keeps its markers; ``gate`` holds writes back, ``error`` makes them fail."""

    def __init__(self, checkpoint=None):
        self.markers, self.gate, self.error = [checkpoint] if checkpoint else [], asyncio.Event(), None
        self.gate.set()

    async def claim(self):
        pass

    async def read(self, load):
        return self.markers[-1] if self.markers else None

    async def write(self, rows, checkpoint):
        await self.gate.wait()
        if self.error:
            raise self.error
        self.markers.append(checkpoint)


class Source:
    def __init__(self, begin=0, end=100, committed=None):
        self.range, self.group = OffsetRange(begin, end), committed
        self.asked = []

    async def bounds(self, places):
        return dict.fromkeys(places, self.range)

    async def committed(self, places):
        return {} if self.group is None else dict.fromkeys(places, self.group)

    def read_from(self, place, offset):
        self.asked.append((place, offset))


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    """Epochs begin at 0 s."""
    monkeypatch.setattr("streams.partition.monotonic", lambda: 0.0)


def marker(position, clean, bundle="old"):
    return Checkpoint(
        spec="spec-1", bundle=bundle, partitions=1, positions={PROFILED: position}, origins={}, keys=0, digest="none", clean=clean
    )


def checkpointed(stage, log, failed=lambda error: None, source=None):
    logs = CheckpointLogs(stage, None, lambda topic, partition: log, 1.0)
    logs.partitions = 1
    return Partition(stage, 0, logs.create(0), source or Source(), failed)


def in_memory(source):
    return Partition(Profiling(), 0, MemoryLog(0), source, lambda error: None)


def chunk(begin, count=1):
    records = [SimpleNamespace(offset=begin + i, value=b"v", timestamp=7, timestamp_type=1) for i in range(count)]
    return RecordChunk(TP(PROFILED, 0), records, begin)


def advance(partition, one, delivery=None):
    partition.advance(one, one.records, delivery or delivered(), 0.0)


def delivered() -> Delivery:
    delivery = Delivery()
    delivery.arrived()
    return delivery


def run(test):
    return asyncio.run(asyncio.wait_for(test, 5))


async def _turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


def test_without_a_checkpoint_log_a_commit_returns_when_the_outputs_are_acknowledged():
    async def test():
        partition = in_memory(Source(committed=3))
        await partition.restore([PROFILED])
        delivery = Delivery()
        advance(partition, chunk(3), delivery)
        assert partition.epoch_ended(0.0)
        committing = asyncio.create_task(partition.commit(0.0))
        await _turns()
        assert not committing.done()
        delivery.arrived()
        await committing
        assert partition.positions == {PROFILED: 4}
        assert not partition.epoch_ended(9.0)

    run(test())


def test_with_a_checkpoint_log_the_next_epoch_runs_while_outputs_wait_for_their_acknowledgement():
    async def test():
        log, stage = KafkaLog(marker(5, clean=False)), Profiling()
        partition = checkpointed(stage, log)
        await partition.restore([PROFILED])
        delivery = Delivery()
        advance(partition, chunk(5), delivery)
        assert not partition.epoch_ended(0.5)
        assert partition.epoch_ended(1.0)
        await partition.commit(1.0)
        advance(partition, chunk(6))
        await _turns()
        assert [one.positions for one in log.markers] == [{PROFILED: 5}]
        assert partition.age(3.0) == 3.0
        delivery.arrived()
        await partition.committed()
        assert [one.positions for one in log.markers] == [{PROFILED: 5}, {PROFILED: 6}]

    run(test())


def test_one_checkpoint_is_written_before_the_next_begins():
    async def test():
        log = KafkaLog(marker(0, clean=False))
        partition = checkpointed(Profiling(), log)
        await partition.restore([PROFILED])
        log.gate.clear()
        advance(partition, chunk(0))
        await partition.commit(1.0)
        advance(partition, chunk(1))
        second = asyncio.create_task(partition.commit(2.0))
        await _turns()
        assert not second.done()
        log.gate.set()
        await second
        await partition.committed()
        assert [one.positions[PROFILED] for one in log.markers] == [0, 1, 2]

    run(test())


def test_a_newer_decider_takes_over_after_the_replay_and_decides_only_after_its_marker_is_written():
    async def test():
        log, stage = KafkaLog(marker(0, clean=False)), Deciding()
        partition = checkpointed(stage, log, source=Source(end=2))
        await partition.restore([PROFILED])
        stage.newest = "new"
        advance(partition, chunk(0))
        assert not partition.epoch_ended(0.1)  # the record at 1 may have been decided by the old one
        await partition.commit(0.1)
        await partition.committed()
        assert (log.markers[-1].bundle, stage.current) == ("old", "old")
        advance(partition, chunk(1))
        assert partition.epoch_ended(0.2)
        log.gate.clear()
        committing = asyncio.create_task(partition.commit(0.2))
        await _turns()
        assert stage.current == "new"
        assert not committing.done()
        log.gate.set()
        await committing
        assert (log.markers[-1].bundle, log.markers[-1].positions) == ("new", {PROFILED: 2})

    run(test())


@pytest.mark.parametrize(("checkpoint", "markers"), [(None, 1), (marker(4, clean=True), 2), (marker(4, clean=False), 1)])
def test_the_first_epoch_after_a_clean_stop_is_announced_with_its_decider(checkpoint, markers):
    async def test():
        log, stage = KafkaLog(checkpoint), Deciding()
        stage.newest = "new"
        partition = checkpointed(stage, log)
        await partition.restore([PROFILED])
        assert len(log.markers) == markers
        if markers == 2 or checkpoint is None:
            assert (log.markers[-1].bundle, log.markers[-1].clean) == ("new", False)

    run(test())


def test_a_stop_is_not_clean_while_a_replay_is_unfinished():
    async def test():
        for replayed, clean in ((1, False), (2, True)):
            log = KafkaLog(marker(0, clean=False))
            partition = checkpointed(Profiling(), log, source=Source(end=2))
            await partition.restore([PROFILED])
            advance(partition, chunk(0, replayed))
            await partition.commit(0.0, clean=True)
            await partition.committed()
            assert log.markers[-1].clean is clean

    run(test())


def test_a_checkpoint_that_cannot_be_written_ends_the_process_and_is_never_followed_by_another():
    async def test():
        log, errors = KafkaLog(marker(0, clean=False)), []
        partition = checkpointed(Profiling(), log, errors.append)
        await partition.restore([PROFILED])
        log.error = DeliveryError("no broker")
        advance(partition, chunk(0))
        await partition.commit(0.0)
        await _turns()
        assert errors == [log.error]
        log.error = None
        with pytest.raises(DeliveryError, match="no broker"):
            await partition.commit(0.0)
        assert len(log.markers) == 1

    run(test())


@pytest.mark.parametrize(
    ("committed", "begin", "end", "resumed"),
    [
        (None, 0, 9, 0),
        (5, 0, 9, 5),
        (4, 0, 9, 4),  # the last chunk was processed but not committed: it is read again
        (6, 0, 9, None),  # another worker has gone on
        (5, 6, 9, 6),  # retention deleted the next record
        (5, 0, 4, 0),  # the topic was recreated
    ],
)
def test_a_partition_in_memory_resumes_at_the_committed_offset_unless_another_worker_went_on(committed, begin, end, resumed):
    found = run(MemoryLog(0).resume(Source(begin, end, committed), [PROFILED], {PROFILED: 5}))
    assert found == (None if resumed is None else {PROFILED: resumed})


def test_a_long_epoch_keeps_only_the_deliveries_that_it_must_wait_for():
    async def test():
        partition = checkpointed(Profiling(), KafkaLog(marker(0, clean=False)))
        await partition.restore([PROFILED])
        waiting, failed = Delivery(), Delivery()
        failed.failed(DeliveryError("no broker"))
        for at, delivery in enumerate([waiting, failed, *(delivered() for _ in range(50))]):
            advance(partition, chunk(at), delivery)
        assert len(partition._deliveries) <= 3
        await partition.commit(1.0)
        waiting.arrived()
        with pytest.raises(DeliveryError, match="no broker"):
            await partition.committed()

    run(test())


def test_nothing_is_processed_while_a_switch_waits_for_its_marker():
    """The wait for the marker may be cancelled, for example by a stop."""

    async def test():
        log, stage = KafkaLog(marker(0, clean=False)), Deciding()
        partition = checkpointed(stage, log, source=Source(end=0))
        await partition.restore([PROFILED])
        stage.newest = "new"
        log.gate.clear()
        committing = asyncio.create_task(partition.commit(0.0))
        await _turns()
        committing.cancel()
        await asyncio.wait([committing])
        taking = asyncio.create_task(partition.unprocessed(chunk(0), may_seek=True))
        await _turns()
        assert not taking.done()
        log.gate.set()
        assert len(await taking) == 1
        assert log.markers[-1].bundle == "new"

    run(test())


def test_records_that_retention_deleted_stop_a_stage_with_checkpoints_and_are_logged_by_others(caplog):
    async def received(partition, position):
        partition.positions = {PROFILED: position}
        return await partition.unprocessed(gap, may_seek=True)

    gap = chunk(8)
    gap.begin = 5
    with pytest.raises(StateError, match="3 records of profiled/0 were deleted by retention"):
        run(received(checkpointed(Profiling(), KafkaLog(), source=Source(begin=8)), 5))
    with caplog.at_level(logging.ERROR):
        assert run(received(in_memory(Source(begin=8)), 5)) == gap.records
    assert "3 records of profiled/0 were deleted by retention" in caplog.text


def test_a_chunk_is_cut_at_the_position_and_missing_records_are_asked_for():
    async def test():
        source = Source()
        partition = checkpointed(Profiling(), KafkaLog(marker(5, clean=True)), source=source)
        await partition.restore([PROFILED])
        one = chunk(3, 4)
        assert [record.offset for record in await partition.unprocessed(one, may_seek=True)] == [5, 6]
        later = chunk(7)
        assert await partition.unprocessed(later, may_seek=False) is None
        assert source.asked == []
        assert await partition.unprocessed(later, may_seek=True) is None
        assert source.asked == [((PROFILED, 0), 5)]

    run(test())
