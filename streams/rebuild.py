"""
Rebuild state from the records that Kafka still holds, for a new feature spec, a damaged log, or a first start with a history.

No decision is repeated: each stage continues at the position of its last checkpoint, within the offsets that Kafka still holds.
A stage without a checkpoint has decided nothing yet and starts at the beginning.
"""

import logging
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from core.errors import InvalidEvent, Refusal, StateError
from core.messages import Label
from core.settings import Settings
from core.topics import PROFILED, TRANSACTIONS
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.history import HistoryChunk, load_history
from streams.kafka.connection import connection_of
from streams.kafka.publishing import Publisher
from streams.profiled import ProfiledRows, decode_profiled
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import decider_version

logger = logging.getLogger(__name__)

_AT_ONCE = 5_000


async def rebuild(
    profile: ProfileStage, score: ScoreStage, settings: Settings, history: Iterable[HistoryChunk], labels: Sequence[Label],
    progress: Callable[[str, int], None], only: Collection[int] = (),
) -> None:  # fmt: skip
    """
    Rewrite both stages' checkpoint logs, from ``history`` and from the source topics up to where each stage stopped. ``only``
    limits this to some partitions.

    Stop all workers first: the rebuild claims the logs, and a running worker would fail. ``progress`` is called with (source,
    number of records).

    Raises:
        StateError: if topics or partitions are missing, or records of another feature spec are not scored yet.
        BrokerError: if Kafka does not answer.
    """
    publisher = Publisher(connection_of(settings))
    await publisher.start()
    try:
        counts = await publisher.counts([*profile.topics, *score.topics, profile.checkpoints, score.checkpoints])
        if 0 in counts.values() or len(set(counts.values())) > 1:
            raise StateError(
                f"these topics must exist with the same number of partitions, but have {counts}: run `whyflag topics create`"
            )
        partitions = counts[TRANSACTIONS]
        chosen = sorted(only) if only else list(range(partitions))
        if chosen[-1] >= partitions:
            raise StateError(f"there is no partition {chosen[-1]}: the topics have {partitions} partitions, numbered from 0")
        logs = {}
        for stage in (profile, score):
            for partition in chosen:
                log = CheckpointLog(connection_of(settings), stage.checkpoints, partition)
                await log.claim()
                logs[stage.name, partition] = (log, await log.start_over())
        waiting = await _of_another_spec(settings, score, {p: logs[score.name, p][1] for p in chosen})
        if waiting:
            raise StateError(
                f"{waiting} records in {PROFILED} have another feature spec or format and are not scored yet: run the worker that "
                "wrote them, with its bundle, until whyflag_lag_records is 0, then rebuild"
            )
        progress("history", await load_history(history, labels, profile, score, publisher))
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
    state = stage.state(partition)
    positions: dict[str, int] = {}
    for topic in stage.topics:
        stopped = checkpoint.positions.get(topic) if checkpoint else 0  # without a checkpoint nothing has been decided yet
        positions[topic] = stopped or 0
        # if the number of partitions has changed, this partition had other keys: the past of its keys must come from the history
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
            spec=stage.version, bundle=decider_version(stage, partition), partitions=partitions, positions=positions, origins=dict(state.origins),
            keys=state.keys, digest=state.digest, clean=True, pan_key=settings.privacy.fingerprint,
        ),
    )  # fmt: skip
    logger.info("%s %d rebuilt: %d keys", stage.name, partition, state.keys)


async def _of_another_spec(settings: Settings, score: ScoreStage, stopped: dict[int, Checkpoint | None]) -> int:
    """Return the number of records that wait to be scored but were profiled with another feature spec."""
    found = 0
    for partition, checkpoint in stopped.items():
        begin = checkpoint.positions.get(PROFILED, 0) if checkpoint else 0
        async for records in _records(settings, PROFILED, partition, begin, None):
            for record in records:
                try:
                    profiled = decode_profiled(record.value)
                    found += isinstance(profiled, ProfiledRows) and profiled.spec != score.version
                except InvalidEvent as error:
                    found += error.reason is Refusal.OTHER_FORMAT
    return found


async def _bounds(settings: Settings, topic: str, partition: int) -> tuple[int, int]:
    connection = connection_of(settings)
    place = TopicPartition(connection.name(topic), partition)
    async with AIOKafkaConsumer(**connection.aiokafka, group_id=None) as consumer:
        consumer.assign([place])
        return (await consumer.beginning_offsets([place]))[place], (await consumer.end_offsets([place]))[place]


async def _records(settings: Settings, topic: str, partition: int, begin: int, upto: int | None) -> AsyncIterator[list[Any]]:
    """Yield the records of a partition that Kafka still holds, from ``begin`` to before ``upto`` (None: to the end)."""
    connection = connection_of(settings)
    place = TopicPartition(connection.name(topic), partition)
    first, end = await _bounds(settings, topic, partition)
    end = end if upto is None else min(upto, end)
    if max(begin, first) >= end:
        return
    async with AIOKafkaConsumer(**connection.aiokafka, group_id=None, max_poll_records=_AT_ONCE) as consumer:
        consumer.assign([place])
        consumer.seek(place, max(begin, first))
        while await consumer.position(place) < end:
            for records in (await consumer.getmany(place, timeout_ms=500)).values():
                if kept := [record for record in records if record.offset < end]:
                    yield kept
