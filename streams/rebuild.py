"""
State computed anew from what Kafka still holds, for a new feature spec, a damaged log, or a first start with a history.

Nothing is decided again: the hops go on where they stopped, or, where that is not known, at the end of what there is.
"""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition

from core.errors import StateError
from core.messages import Label, decode_profiled
from core.settings import Settings
from core.topics import PROFILED, TRANSACTIONS
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.history import HistoryChunk, learn
from streams.kafka.connection import connection_of
from streams.kafka.publishing import Publisher
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage

logger = logging.getLogger(__name__)

_AT_ONCE = 5_000


async def rebuild(
    profile: ProfileStage, score: ScoreStage, settings: Settings, history: Iterable[HistoryChunk], labels: Sequence[Label],
    progress: Callable[[str, int], None], only: Collection[int] = (),
) -> None:  # fmt: skip
    """
    Write both hops' checkpoint logs anew, from ``history`` and from the source topics up to where the hops stopped; with ``only`` those
    of some partitions.

    No worker may run: the claim ends the writing of one that does. ``progress`` is told (what, records).

    Raises:
        StateError: if topics are missing, or records that the second hop has not scored yet belong to another feature spec.
        BrokerError: if Kafka does not answer.
    """
    publisher = Publisher(connection_of(settings))
    await publisher.start()
    try:
        counts = await publisher.counts([*profile.topics, *score.topics, profile.checkpoints, score.checkpoints])
        if 0 in counts.values() or len(set(counts.values())) > 1:
            raise StateError(
                f"these topics must be there with the same number of partitions, but have {counts}: `whyflag topics create`"
            )
        partitions = counts[TRANSACTIONS]
        chosen = sorted(only) if only else list(range(partitions))
        if chosen[-1] >= partitions:
            raise StateError(f"there is no partition {chosen[-1]}: the topics have {partitions}, counted from 0")
        logs = {}
        for stage in (profile, score):
            for partition in chosen:
                log = CheckpointLog(connection_of(settings), stage.checkpoints, partition)
                await log.claim()
                logs[stage.name, partition] = (log, await log.start_over())
        waiting = await _of_another_spec(settings, score, {p: logs[score.name, p][1] for p in chosen})
        if waiting:
            raise StateError(
                f"{waiting} records in {PROFILED} are not scored yet and belong to another feature spec: start the bundle they belong to "
                "until whyflag_lag_records is 0, then rebuild"
            )
        progress("history", await learn(history, labels, profile, score, publisher))
        for stage in (profile, score):
            for partition in chosen:
                log, checkpoint = logs[stage.name, partition]
                await _rebuild(stage, partition, partitions, log, checkpoint, settings, progress)
                await log.close()
    finally:
        await publisher.stop()


async def _rebuild(
    stage: ProfileStage | ScoreStage, partition: int, partitions: int, log: CheckpointLog, checkpoint: Checkpoint | None,
    settings: Settings, progress: Callable[[str, int], None],
) -> None:  # fmt: skip
    state = stage.states.setdefault(partition, stage.new_state())
    positions: dict[str, int] = {}
    for topic in stage.topics:
        stopped = checkpoint.positions.get(topic) if checkpoint else 0  # without a checkpoint nothing was decided yet
        positions[topic] = stopped or 0
        # among another number of partitions the records of this one are of other keys: the history has to tell their past
        kept = stopped if checkpoint and checkpoint.partitions == partitions else 0
        async for records in _records(settings, topic, partition, 0, kept):
            stage.remember(topic, partition, records)
            progress(f"{topic} {partition}", len(records))
        begin, end = await _bounds(settings, topic, partition)
        positions[topic] = min(max(positions[topic], begin), end)
    if checkpoint:
        state.origins |= {name: max(offset, state.origins.get(name, -1)) for name, offset in checkpoint.origins.items()}
    rows = state.changed()
    await log.write(
        rows,
        Checkpoint(
            spec=stage.version, bundle=stage.decider_version(partition), partitions=partitions, positions=positions, origins=dict(state.origins),
            keys=state.keys, digest=state.digest, clean=True, pan_key=settings.privacy.fingerprint,
        ),
    )  # fmt: skip
    logger.info("%s %d rebuilt: %d keys", stage.name, partition, state.keys)


async def _of_another_spec(settings: Settings, score: ScoreStage, stopped: dict[int, Checkpoint | None]) -> int:
    """How many records wait for the second hop that another spec has profiled."""
    found = 0
    for partition, checkpoint in stopped.items():
        begin = checkpoint.positions.get(PROFILED, 0) if checkpoint else 0
        async for records in _records(settings, PROFILED, partition, begin, None):
            for record in records:
                with suppress(msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    profiled = decode_profiled(record.value or b"")
                    found += profiled.transaction is not None and profiled.spec != score.version
    return found


async def _bounds(settings: Settings, topic: str, partition: int) -> tuple[int, int]:
    place = TopicPartition(topic, partition)
    async with AIOKafkaConsumer(**connection_of(settings).aiokafka, group_id=None) as consumer:
        consumer.assign([place])
        return (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]


async def _records(settings: Settings, topic: str, partition: int, begin: int, upto: int | None) -> AsyncIterator[list[Any]]:
    """The records of a partition from ``begin`` on that Kafka still holds, up to an offset or to the end."""
    place = TopicPartition(topic, partition)
    first, end = await _bounds(settings, topic, partition)
    end = end if upto is None else min(upto, end)
    if max(begin, first) >= end:
        return
    async with AIOKafkaConsumer(**connection_of(settings).aiokafka, group_id=None, max_poll_records=_AT_ONCE) as consumer:
        consumer.assign([place])
        consumer.seek(place, max(begin, first))
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(place, timeout_ms=500)).values():
                if kept := [record for record in records if record.offset < end]:
                    yield kept
