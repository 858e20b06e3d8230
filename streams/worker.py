"""
A worker: one Faust app with one agent per stage. The agent only passes the stage's chunks to its operator.

``operator.py`` processes the chunks; ``partition.py`` writes the checkpoints. An error ends the process at once and acknowledges
nothing; SIGTERM finishes the current chunk, writes a last checkpoint and leaves the group.
"""

import asyncio
import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import faust
from faust.serializers.schemas import Schema

from core.clock import SystemClock
from core.errors import BrokerError, WhyflagError
from core.metrics import REBALANCES
from core.settings import Settings
from streams.checkpoints import CheckpointLog
from streams.gauges import Gauges
from streams.health import Health
from streams.kafka.clients import check_timestamps, refuse_missing
from streams.kafka.connection import Connection, connection_of
from streams.kafka.publishing import Publisher
from streams.operator import Operator
from streams.recovery import logs_of
from streams.source import Place, Source
from streams.stages.stage import Stage
from streams.watchdog import Watchdog

logger = logging.getLogger(__name__)

EXIT_FAILED = 70  # EX_SOFTWARE: the supervisor restarts the worker
_CHUNKS_BUFFERED = 16  # chunks that may wait in memory before fetching from a partition pauses
_DRAIN_SECONDS = 18.0  # to finish pending work after SIGTERM; Kubernetes would kill the pod after 30
_STOP_SECONDS = 21.0  # for the whole shutdown, which must end within 25 s; Faust's clients would wait longer for an absent broker
_ASK_SECONDS = 5.0


class ChunkSchema(Schema[Any, Any]):
    """Faust schema that passes chunks through undecoded."""

    def loads_key(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """Return None: a chunk has no key, only its records do."""
        return None

    def loads_value(self, app: Any, message: Any, **kwargs: Any) -> Any:
        """Return the chunk itself."""
        return message.value


def build_app(
    group: str,
    settings: Settings,
    stages: list[Stage],
    health: Health,
    before: Callable[[Publisher], Awaitable[None]] | None = None,
    checks: Mapping[str, Callable[[], None]] | None = None,
) -> faust.App:
    """
    Return a Faust app that runs some stages in the consumer group ``group``.

    ``before`` runs once before the first chunk. ``checks`` are named functions that return once a dependency other than Kafka
    has answered.
    """
    connection = connection_of(settings)
    publisher = Publisher(connection)
    open_log = partial(CheckpointLog, connection) if settings.checkpoints else None
    logs = [logs_of(stage, publisher, open_log, settings.checkpoint_seconds, settings.privacy.fingerprint) for stage in stages]
    operators = [Operator(stage, publisher, own, _exit_failed) for stage, own in zip(stages, logs, strict=True)]
    watchdog = Watchdog(
        connection,
        operators,
        settings.stalled_seconds,
        _exit_failed,
        partial(health.answered, "Kafka"),
        Gauges(operators, SystemClock()),
    )
    running: list[asyncio.Task[None]] = []
    stopping = asyncio.Event()

    class App(faust.App):
        mundane_level = "debug"  # of Mode's lines about starting and stopping services
        connection: Connection

        async def on_start(self) -> None:
            # runs before Faust's own start: partitions may be assigned as soon as its consumer runs
            try:
                await health.start()
                await publisher.start()
                health.answered("Kafka")
                topics = sorted({topic for stage in stages for topic in stage.topics})
                counts = await publisher.counts(topics)
                refuse_missing([topic for topic in topics if not counts[topic]])  # a consumer would wait for them without a word
                if settings.checkpoints:
                    await asyncio.to_thread(check_timestamps, settings, topics)
                for stage in stages:
                    await stage.start(publisher)
                if before:
                    await before(publisher)
                freeze_garbage_collector()
            except BaseException as error:
                _exit_failed(error, "the worker cannot start")
            asking = [_ask(health, name, check) for name, check in (checks or {}).items()]
            work = [*(operator.run_maintenance() for operator in operators), watchdog.run(), *asking]
            running.extend(asyncio.create_task(one) for one in work)
            for task in running:
                task.add_done_callback(_exit_if_failed)
            await super().on_start()

        async def open_partitions(self, assigned: set[Place], source: Source) -> None:
            health.ready = False
            try:
                for operator in operators:
                    # opening them while the next rebalance or the stop has begun would fence their next owner
                    if stopping.is_set() or not await operator.open(assigned, source):
                        return
            except BaseException as error:
                if stopping.is_set():  # the consumer has been closed; nothing was acknowledged
                    logger.warning("the partitions of the last rebalance were not opened, because the worker stops: %r", error)
                    return
                _exit_failed(error)
            REBALANCES.inc()
            health.ready = True

    app = App(
        connection.name(group),
        broker=[f"whyflag://{server}" for server in connection.servers],
        broker_credentials=connection.faust,
        store="memory://",
        datadir=tempfile.gettempdir(),  # required by Faust; nothing is written, because there are no tables
        consumer_auto_offset_reset="earliest",
        broker_max_poll_records=settings.max_poll_records,
        broker_commit_interval=1.0,
        broker_session_timeout=settings.session_seconds,
        broker_heartbeat_interval=settings.session_seconds / 5,  # from the consumer's own thread
        stream_buffer_maxsize=_CHUNKS_BUFFERED,
        stream_wait_empty=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        web_enabled=False,
        web_tables_enabled=False,
        autodiscover=False,
        origin=None,
    )

    app.connection = connection

    def _operate(operator: Operator) -> None:
        # One agent per stage handles one chunk at a time, so that the stage's state changes in the order of each partition.
        # While one stage waits for acknowledgements, the other computes.
        topics = [connection.name(topic) for topic in operator.stage.topics]

        @app.agent(app.topic(*topics, schema=ChunkSchema()), name=f"{group}-{operator.stage.name}")
        async def operate(chunks: Any) -> None:
            async for chunk in chunks:
                try:
                    await operator.handle(chunk)
                except asyncio.CancelledError:
                    raise
                except BaseException as error:
                    # Faust would acknowledge the chunk and go on: only ending the process prevents that
                    _exit_failed(error)

    for operator in operators:
        _operate(operator)

    @app.on_partitions_revoked.connect
    async def revoked(*_: Any, **kwargs: Any) -> None:
        health.ready = False
        for operator in operators:
            operator.interrupt()
        try:
            for operator in operators:
                await operator.revoke()
        except BaseException as error:
            _exit_failed(error)

    @app.on_before_shutdown.connect
    async def close(*_: Any, **kwargs: Any) -> None:
        health.ready = False
        stopping.set()
        for operator in operators:
            operator.interrupt()
        logger.info("the worker stops after a signal to stop: it finishes its chunk and writes its last checkpoints")
        _exit_later(_STOP_SECONDS)
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                for operator in operators:
                    await operator.stop()
                for task in running:
                    task.cancel()
                await publisher.stop()
        except TimeoutError:
            _exit_failed(
                BrokerError(f"Kafka has not accepted the pending writes within {_DRAIN_SECONDS:.0f} s of the signal to stop")
            )
        except BaseException as error:
            _exit_failed(error)
        await health.stop()
        logger.info("the worker has stopped; nothing is unfinished")

    return app


async def _ask(health: Health, name: str, check: Callable[[], None]) -> None:
    """Check a dependency every few seconds and record its answers, until cancelled."""
    health.answered(name)
    while True:
        try:
            await asyncio.to_thread(check)
            health.answered(name)
        except Exception as error:
            logger.warning("%s does not answer: %s", name, error)
        await asyncio.sleep(_ASK_SECONDS)


def freeze_garbage_collector() -> None:
    """Exempt existing objects from garbage collection: with compiled kernels a full collection stops the event loop for 0.3 s."""
    gc.collect()
    gc.freeze()


def _exit_later(seconds: float) -> None:
    """End the process after a delay, even if Kafka clients are still waiting for an absent broker."""
    late = BrokerError(f"the worker has not shut down within {seconds:.0f} s of the signal to stop: Kafka does not answer")
    timer = threading.Timer(seconds, _exit_failed, [late])
    timer.daemon = True
    timer.start()


def _exit_if_failed(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        _exit_failed(error)


def _exit_failed(error: BaseException, what: str = "the worker stops without acknowledging its unfinished input") -> None:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    if isinstance(error, WhyflagError):
        logger.critical("%s: %s", what, error)
    else:
        logger.critical(what, exc_info=error)
    sys.stdout.flush()
    logging.shutdown()
    os._exit(EXIT_FAILED)


def run(app: faust.App) -> None:
    """Run a worker until SIGTERM or Ctrl-C. Ends the process."""
    worker = faust.Worker(app, loglevel="WARNING", redirect_stdouts=False, override_logging=False, quiet=True)
    worker.spinner = None  # it would write escapes into log files
    worker.execute_from_commandline()
