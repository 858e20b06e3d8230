"""
The console's background work: publish verdicts and heads of the audit trail to Kafka, and send webhooks.

A verdict leaves once its grace period is over: as a verdict message and, unless it is an escalation, as a label. It counts as
published only when Kafka has acknowledged both, so none is lost. If the process ends before that, both messages are sent again,
and consumers ignore the duplicates. If several consoles run, a lease in the database lets only one of them do this work.
"""

import logging
import threading
import time
from collections.abc import Callable

from analyst.leases import Lease
from analyst.queue import Queue
from analyst.verdicts import GivenVerdict, Outbox
from analyst.webhooks import Webhooks, post
from core import metrics
from core.messages import encode, label_of
from core.settings import Settings
from core.topics import AUDIT_ANCHORS, LABELS, VERDICTS
from streams.kafka.clients import Sender

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5  # pause without work: a verdict leaves within about this time after its grace period
_RETRY_SECONDS = 5.0  # pause after Kafka or the database has failed


class Relay:
    """Two threads that run while the console runs: one publishes to Kafka, the other sends webhooks."""

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self._database, self._clock, self._settings = queue.database, queue.clock, settings
        self._outbox = Outbox(queue.database, queue.clock)
        self._webhooks = Webhooks(queue.database, queue.clock, on_loopback=not settings.console_url)
        self._stop = threading.Event()
        self._failing_since: float | None = None
        self._leases = {task: Lease(queue.database, queue.clock, task) for task in ("relay", "webhooks")}
        self._threads = [
            threading.Thread(target=self._run, args=("relay", self._publish), name="relay", daemon=True),
            threading.Thread(target=self._run, args=("webhooks", self._notify), name="webhooks", daemon=True),
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask the threads to stop after their current work, and wait up to 10 s for each."""
        self._stop.set()
        for thread in self._threads:
            thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        """Whether the threads are running."""
        return all(thread.is_alive() for thread in self._threads)

    @property
    def publishing(self) -> bool:
        """Whether the threads run and Kafka has not failed for longer than ``broker_silence_seconds``."""
        failing = 0.0 if self._failing_since is None else time.monotonic() - self._failing_since
        return self.alive and failing < self._settings.broker_silence_seconds

    def _run(self, task: str, work: Callable[[], bool]) -> None:
        while not self._stop.is_set():
            try:
                busy = self._leases[task].acquire() and work()
                if task == "relay":
                    self._failing_since = None
                if not busy:
                    self._stop.wait(_IDLE_SECONDS)
            except Exception as error:  # Kafka or the database is unavailable: nothing is lost, and the next attempt may succeed
                if task == "relay":
                    self._failing_since = self._failing_since or time.monotonic()
                logger.warning("%s: nothing is sent and everything is kept: %s", task, error)
                self._stop.wait(_RETRY_SECONDS)
        try:
            self._leases[task].release()
        except Exception as error:  # the lease ends by itself
            logger.warning("%s: the lease was not given back: %s", task, error)

    def _publish(self) -> bool:
        """Publish the verdicts that are ready and a new head of the audit trail; return whether there were any verdicts."""
        ready = self._outbox.take()
        if ready:
            self._send(ready)
            self._outbox.acknowledged([one.number for one in ready])
            for one in ready:
                metrics.VERDICTS.labels(one.verdict.finding.value).inc()
        self._anchor()
        return bool(ready)

    def _send(self, ready: list[GivenVerdict]) -> None:
        """Send verdicts and their labels and return when Kafka has acknowledged them."""
        sender = Sender(self._settings, 0)
        for one in ready:
            sender.send(VERDICTS, one.verdict.alert_id.encode(), encode(one.verdict))
            if label := label_of(one.verdict):
                sender.send(LABELS, label.card_id.encode(), encode(label))
        sender.close()

    def _anchor(self) -> None:
        with self._database.reading() as connection:
            anchor = self._database.audit.new_anchor(connection)
        if anchor is None:
            return
        sender = Sender(self._settings, 0)
        sender.send(AUDIT_ANCHORS, b"audit", encode(anchor))
        sender.close()
        with self._database.changing() as connection:
            self._database.audit.anchored(connection, anchor)

    def _notify(self) -> bool:
        return self._webhooks.send_due(post)
