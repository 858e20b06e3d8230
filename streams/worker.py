"""
A worker: one Faust app with one agent a stage, which runs the stage over its chunks, and nothing else.

Numbered steps of a chunk, in ``_handle``:

1. the stage computes the outputs and changes its state;
2. every output is published and acknowledged by Kafka;
3. only then the chunk counts as done, and Faust may commit its offset.

Whatever goes wrong in between ends the process at once, without acknowledging: the chunk is read again.
"""

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable
from time import perf_counter
from typing import Any

import faust
from faust.serializers.schemas import Schema
from faust.types import TP

from core.metrics import ACK_SECONDS, BATCH_SECONDS, RECORDS
from core.settings import Settings
from streams.health import Health
from streams.publishing import Publisher
from streams.stage import Stage
from streams.transport import Chunk

logger = logging.getLogger(__name__)

EXIT_FAILED = 70  # EX_SOFTWARE: the supervisor restarts the worker
_CHUNKS_BUFFERED = 16  # chunks waiting in memory before fetching from a partition pauses


class ChunkSchema(Schema[Any, Any]):
    """Chunks pass through Faust undecoded."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """No key: each record has its own."""
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """The chunk itself."""
        return message.value


def build_app(
    group: str,
    settings: Settings,
    stages: list[Stage],
    health: Health,
    before: Callable[[Publisher], Awaitable[None]] | None = None,
) -> faust.App:
    """A Faust app for some stages, in the consumer group ``group``; ``before`` runs once before the first chunk."""
    app = faust.App(
        group,
        broker=[f"whyflag://{server}" for server in settings.kafka_bootstrap.split(",")],
        store="memory://",
        datadir=tempfile.gettempdir(),  # Faust insists on one; nothing is written: there are no tables
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=settings.max_poll_records,
        broker_commit_interval=1.0,
        # a worker that vanished is missed after this long; heartbeats come from the consumer's own thread every 3 s
        broker_session_timeout=15.0,
        stream_buffer_maxsize=_CHUNKS_BUFFERED,
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        web_tables_enabled=False,
        autodiscover=False,
        origin=None,
    )
    publisher = Publisher(settings.kafka_bootstrap)
    started = asyncio.Event()

    async def _handle(stage: Stage, chunk: Chunk) -> None:
        begin = perf_counter()
        outputs = await stage.process(chunk.topic, chunk.partition, chunk.records)  # 1
        computed = perf_counter()
        await publisher.publish(outputs)  # 2
        chunk.done = True  # 3
        RECORDS.labels(stage.name, chunk.topic).inc(len(chunk.records))
        BATCH_SECONDS.labels(stage.name).observe(computed - begin)
        ACK_SECONDS.labels(stage.name).observe(perf_counter() - computed)

    def _operate(stage: Stage) -> None:
        # one agent a stage and one chunk at a time in it: a stage's state changes in the order of its partitions, while the other
        # stage computes during its acknowledgements
        @app.agent(app.topic(*stage.topics, schema=ChunkSchema()), name=f"{group}-{stage.name}")
        async def operate(chunks: Any) -> None:
            await started.wait()
            async for chunk in chunks:
                try:
                    await _handle(stage, chunk)
                except asyncio.CancelledError:
                    raise
                except BaseException:
                    # Faust would acknowledge the chunk and go on: nothing but leaving keeps it
                    logger.critical("worker %s stops without acknowledging a chunk of %s", group, chunk.topic, exc_info=True)
                    _leave()

    for stage in stages:
        _operate(stage)

    @app.task()  # type: ignore[untyped-decorator]
    async def open_stages(_: Any = None) -> None:
        try:
            await publisher.start()
            await health.start()
            for stage in stages:
                await stage.start(publisher)
            if before:
                await before(publisher)
        except BaseException:
            logger.critical("worker %s cannot start", group, exc_info=True)
            _leave()
        started.set()

    @app.on_partitions_assigned.connect  # type: ignore[arg-type]
    async def assigned(_: Any, assigned: set[TP], **kwargs: Any) -> None:
        partitions: dict[str, set[int]] = {}
        for tp in assigned:
            partitions.setdefault(tp.topic, set()).add(tp.partition)
        for stage in stages:
            stage.assigned(partitions)
        health.ready = True

    @app.on_partitions_revoked.connect  # type: ignore[arg-type]
    async def revoked(_: Any, revoked: set[TP], **kwargs: Any) -> None:
        health.ready = False

    @app.on_before_shutdown.connect  # type: ignore[arg-type]
    async def close(_: Any, **kwargs: Any) -> None:
        health.ready = False
        for stage in stages:
            await stage.stop()
        await publisher.stop()
        await health.stop()

    return app


def _leave() -> None:
    sys.stdout.flush()
    logging.shutdown()
    os._exit(EXIT_FAILED)


def run(app: faust.App) -> None:
    """Run a worker until SIGTERM or Ctrl-C. Ends the process."""
    worker = faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, override_logging=False, quiet=True)
    worker.execute_from_commandline()
