"""
Publish verdicts from the queue to Kafka: each as a verdict message and, unless it is an escalation, as a label.

A verdict stays marked as unpublished in the database until Kafka has acknowledged both messages, so none is lost. If the
process ends before that, both messages are sent again, and consumers ignore the duplicates.
"""

import logging
import threading
import time

from analyst.queue import Queue
from core import metrics
from core.messages import encode, label_of
from core.settings import Settings
from core.topics import LABELS, VERDICTS
from streams.kafka.clients import Sender

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5  # poll interval: a verdict reaches Kafka within about this time
_RETRY_SECONDS = 5.0  # pause after Kafka or the database has failed


class Relay:
    """A thread that publishes verdicts while the console runs."""

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self._queue, self._settings = queue, settings
        self._stop = threading.Event()
        self._failing_since: float | None = None
        self._thread = threading.Thread(target=self._run, name="verdict-relay", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Ask the thread to stop after its current batch of verdicts, and wait up to 10 s for it."""
        self._stop.set()
        self._thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        """Whether the thread is running."""
        return self._thread.is_alive()

    @property
    def publishing(self) -> bool:
        """Whether the thread runs and has not failed for longer than ``broker_silence_seconds``."""
        failing = 0.0 if self._failing_since is None else time.monotonic() - self._failing_since
        return self._thread.is_alive() and failing < self._settings.broker_silence_seconds

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                published = self._publish()
                self._failing_since = None
                if not published:
                    self._stop.wait(_IDLE_SECONDS)
            except Exception as error:  # Kafka or the database is unavailable: nothing is lost, and the next attempt may succeed
                self._failing_since = self._failing_since or time.monotonic()
                logger.warning("verdicts cannot be published and stay in the queue: %s", error)
                self._stop.wait(_RETRY_SECONDS)

    def _publish(self) -> bool:
        """Publish the verdicts that are still unpublished; return whether there were any."""
        waiting = self._queue.unpublished()
        for number, verdict in waiting:
            sender = Sender(self._settings, 0)
            sender.send(VERDICTS, verdict.alert_id.encode(), encode(verdict))
            if label := label_of(verdict):
                sender.send(LABELS, label.card_id.encode(), encode(label))
            sender.close()
            self._queue.mark_published(number)
            metrics.VERDICTS.labels(verdict.finding.value).inc()
        return bool(waiting)
