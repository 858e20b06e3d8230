"""
Verdicts from the queue to Kafka: each becomes a message of its own and a label for the stream.

The verdict waits in the database until Kafka has acknowledged both, so that none is lost; if the process ends in between, both
are sent again, and every reader of them takes the second for what it is.
"""

import logging
import threading

from analyst.queue import Queue
from core import metrics
from core.messages import encode, label_of
from core.settings import Settings
from core.topics import LABELS, VERDICTS
from streams.kafka.clients import Sender

logger = logging.getLogger(__name__)

_IDLE_SECONDS = 0.5  # a verdict reaches the stream within about this
_RETRY_SECONDS = 5.0  # how long to leave a broker alone that does not answer


class Relay:
    """A thread that publishes verdicts while the console runs."""

    def __init__(self, queue: Queue, settings: Settings) -> None:
        self._queue, self._settings = queue, settings
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="verdict-relay", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End after the verdict under way."""
        self._stop.set()
        self._thread.join(timeout=10)

    @property
    def alive(self) -> bool:
        """Whether verdicts are on their way."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                if not self._publish():
                    self._stop.wait(_IDLE_SECONDS)
            except Exception as error:  # a broker or database that is away; nothing is lost, and the next try may succeed
                logger.warning("verdicts wait in the queue: %s", error)
                self._stop.wait(_RETRY_SECONDS)

    def _publish(self) -> bool:
        """Publish what waits; False if nothing did."""
        waiting = self._queue.unpublished()
        for number, verdict in waiting:
            sender = Sender(self._settings, 0)
            sender.send(VERDICTS, verdict.alert_id.encode(), encode(verdict))
            if label := label_of(verdict):
                sender.send(LABELS, label.card_id.encode(), encode(label))
            sender.close()
            self._queue.published(number)
            metrics.VERDICTS.labels(verdict.finding.value).inc()
        return bool(waiting)
