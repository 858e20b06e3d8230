"""Send the live transactions to the pipeline, and count the records that come out."""

import signal
import threading
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from cli.demo.results import Results, Totals
from cli.demo.screen import Shown, live_view
from cli.supervisor import Child
from core.messages import encode
from core.settings import Settings
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, EXPLANATIONS, LABELS, TRANSACTIONS

_POISON_EVERY = 300  # send an undecodable record after this many: it must become a dead letter without stopping a worker
_BEHIND_AT_MOST = 4_000  # records in the pipeline at once: the embedded broker drops records that are not read in time
_DRAIN_SECONDS = 60


class Feed(threading.Thread):
    """Streams the live transactions at a rate, each label at its time, and a broken record now and then."""

    def __init__(self, settings: Settings, folder: Path, rate: float) -> None:
        super().__init__(name="feed", daemon=True)
        self._settings, self._folder, self._rate = settings, folder, rate
        self.sent_at: dict[str, int] = {}
        self.produced = 0
        self.finished = 0  # records that have come out; set by the main thread
        self.simulated_time: int | None = None
        self.error: Exception | None = None
        self.halt = threading.Event()

    def run(self) -> None:
        """Produce until ``halt`` is set or the simulated days are over; keep an error for the main thread."""
        try:
            self._feed()
        except Exception as error:  # the main thread raises it again
            self.error = error

    def _feed(self) -> None:
        from streams.kafka.clients import Sender
        from training.data.mapping import load_mapping
        from training.data.readers import TransactionFile, read_labels
        from training.replay import transactions_of

        labels = deque(read_labels(self._folder / "live-labels.parquet"))
        source = TransactionFile(self._folder / "live.parquet", load_mapping("whyflag"))
        at_rate, at_once = Sender(self._settings, self._rate), Sender(self._settings, 0)
        try:
            for transaction in transactions_of(source):
                while self.produced - self.finished > _BEHIND_AT_MOST and not self.halt.is_set():
                    time.sleep(0.01)
                if self.halt.is_set():
                    return
                while labels and labels[0].label_time <= transaction.event_time:
                    label = labels.popleft()
                    at_once.send(LABELS, label.card_id.encode(), encode(label))
                at_rate.send(TRANSACTIONS, transaction.card_id.encode(), encode(transaction))
                self.sent_at[transaction.transaction_id] = time.time_ns() // 1_000_000
                self.simulated_time = transaction.event_time
                self.produced += 1
                if self.produced % _POISON_EVERY == 0:
                    at_once.send(TRANSACTIONS, transaction.card_id.encode(), encode(transaction)[:-9])
                    self.produced += 1
        finally:
            at_rate.close()
            at_once.close()


def stream(
    settings: Settings, folder: Path, address: str, children: Sequence[Child], headless: bool, duration: float | None, rate: float
) -> Totals:
    """
    Feed until ``duration`` seconds are over or Ctrl-C, then wait until everything that was fed has come out.

    Raises:
        ProcessError: if a worker or the console ends.
    """
    from streams.kafka.clients import Observer

    results, feed = Results(), Feed(settings, folder, rate)
    observer = Observer(settings, (DECISIONS, ALERTS, EXPLANATIONS, DEAD_LETTERS))
    stop = threading.Event()
    previous = signal.signal(signal.SIGINT, lambda *_: stop.set())
    began = time.monotonic()
    feed.start()
    try:
        with live_view(headless) as show:

            def step() -> None:
                for record in observer.poll(100):
                    results.count(record, feed.sent_at)
                feed.finished = results.decided + results.dead_lettered
                for child in children:
                    child.check()
                if feed.error:
                    raise feed.error
                show(Shown(results, feed.produced, feed.simulated_time, address, time.monotonic() - began, feed.halt.is_set()))

            while not stop.is_set() and (duration is None or time.monotonic() - began < duration):
                step()
            streamed = time.monotonic() - began
            feed.halt.set()
            feed.join()
            deadline = time.monotonic() + _DRAIN_SECONDS
            while time.monotonic() < deadline and not results.complete(feed.produced):
                step()
    finally:
        feed.halt.set()
        observer.close()
        signal.signal(signal.SIGINT, previous)
    return results.totals(feed.produced, streamed)
