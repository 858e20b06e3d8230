"""The archive stage, outside the decision path: copies transactions, decisions and labels into the archive."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

import msgspec
import numpy as np

from analyst.archive import Archive, Source
from core.clock import MS_PER_DAY, MS_PER_MINUTE, Clock
from core.decoding import decode_label, decode_transactions
from core.errors import DatabaseError, InvalidEvent, MissingKeyError
from core.event_time import is_ahead, written_at
from core.messages import Decision, Label, Transaction, decode_decision
from core.metrics import ARCHIVE_LATENCY, ARCHIVE_SECONDS, ARCHIVED, MATURED, MATURED_PROBABILITY
from core.privacy.masking import Privacy
from core.topics import DECISIONS, LABELS, TRANSACTIONS
from streams.kafka.publishing import Outputs
from streams.stages.stage import Chunk, Stage, dead_letter

logger = logging.getLogger(__name__)

_MEASURE_MS = 10 * MS_PER_MINUTE  # time between two counts of the outcomes, which read a day's decisions


class ArchiveStage(Stage):
    """
    Stores each chunk in one database transaction before its offsets are committed, so nothing is lost. A record that is read
    again is stored once, because its key is its topic, partition and offset.

    Transactions and labels that are undecodable or from the future are skipped: the scoring worker writes their dead letters. A record
    becomes a dead letter of this stage if it is an undecodable decision, if the database refuses it, or if it needs a PAN key that this
    worker does not have.
    """

    name = "archive"
    topics = (TRANSACTIONS, DECISIONS, LABELS)

    def __init__(self, archive: Archive, privacy: Privacy, clock: Clock, label_delay_ms: int) -> None:
        """A decision without a fraud label after ``label_delay_ms`` counts as legitimate in the metrics."""
        self._archive, self._privacy, self._clock = archive, privacy, clock
        self._label_delay = label_delay_ms
        self._expired_day = -1
        self._measured = 0  # epoch ms

    async def stop(self) -> None:
        """Release the database's connections."""
        self._archive.close()

    def ping(self) -> None:
        """Return when the archive's database has answered."""
        self._archive.ping()

    async def process(self, chunks: Sequence[Chunk]) -> list[Outputs]:
        """
        Store chunks and return dead letters for the records that cannot be stored.

        Raises:
            DatabaseError: if the database does not answer; the chunk is read again.
        """
        await self._expire_daily()
        await self._measure_outcomes()
        return [letter for chunk in chunks for letter in await self._stored(chunk.topic, chunk.records)]

    async def _stored(self, topic: str, records: list[Any]) -> list[Outputs]:
        began = perf_counter()
        letters = await asyncio.to_thread(self._store, topic, records)
        ARCHIVE_LATENCY.observe((self._clock.now_ms() - np.array([record.timestamp for record in records], np.int64)) / 1000)
        ARCHIVED.labels(topic).inc(len(records) - len(letters))
        ARCHIVE_SECONDS.observe(perf_counter() - began)
        return letters

    async def _expire_daily(self) -> None:
        today = self._clock.now_ms() // MS_PER_DAY
        if today != self._expired_day:
            await asyncio.to_thread(self._archive.expire)
            self._expired_day = today

    async def _measure_outcomes(self) -> None:
        """Count alerts and frauds among the decisions of the last day that is older than the label delay."""
        now = self._clock.now_ms()
        if now - self._measured < min(_MEASURE_MS, self._label_delay):
            return
        self._measured, before = now, now - self._label_delay
        try:
            found = await asyncio.to_thread(self._archive.outcomes, before - MS_PER_DAY, before)
        except DatabaseError as error:  # monitoring must not stop the copying
            logger.warning("the outcomes of decisions could not be counted: %s", error)
            return
        MATURED.clear()
        counts = {(one.alert, one.fraud): one.decisions for one in found}
        for alert in (True, False) if found else ():
            for fraud in (True, False):
                MATURED.labels(str(alert).lower(), str(fraud).lower()).set(counts.get((alert, fraud), 0))
        MATURED_PROBABILITY.set(sum(one.probability for one in found) if found else None)

    def _store(self, topic: str, records: list[Any]) -> list[Outputs]:
        """Store the valid records of a chunk and return the dead letters."""
        if topic == TRANSACTIONS:
            transactions = decode_transactions([record.value for record in records], self._privacy)
            return self._add(self._archive.add_transactions, records, transactions, lambda one: one.event_time)
        if topic == DECISIONS:
            return self._add(self._archive.add_decisions, records, [_decision(record.value) for record in records], lambda one: 0)
        labels = [_label(record.value, self._privacy) for record in records]
        return self._add(self._archive.add_labels, records, labels, lambda one: one.label_time)

    def _add(
        self,
        add: Callable[[Sequence[Source], Sequence[Any]], None],
        records: list[Any],
        decoded: Sequence[Transaction | Decision | Label | InvalidEvent],
        time: Callable[[Any], int],
    ) -> list[Outputs]:
        letters, kept = [], []
        now = self._clock.now_ms()
        times = written_at([record.timestamp for record in records], [record.timestamp_type for record in records], now)
        for record, message, written in zip(records, decoded, times.tolist(), strict=True):
            if isinstance(message, InvalidEvent):
                if isinstance(message, MissingKeyError) or add == self._archive.add_decisions:
                    letters.append(dead_letter(self.name, record, message))
                continue
            if not is_ahead(time(message), written):
                kept.append((record, Source(written, record.partition, record.offset), message))
        return letters + self._add_or_halve(add, kept)

    def _add_or_halve(
        self, add: Callable[[Sequence[Source], Sequence[Any]], None], kept: list[tuple[Any, Source, Any]]
    ) -> list[Outputs]:
        """Store messages. If the database refuses some, bisect to find them and return their dead letters."""
        try:
            add([source for _, source, _ in kept], [message for _, _, message in kept])
        except InvalidEvent as error:
            if len(kept) == 1:
                return [dead_letter(self.name, kept[0][0], error)]
            middle = len(kept) // 2
            return self._add_or_halve(add, kept[:middle]) + self._add_or_halve(add, kept[middle:])
        return []


def _decision(raw: bytes | None) -> Decision | InvalidEvent:
    try:
        return decode_decision(raw or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return InvalidEvent(str(error))


def _label(raw: bytes | None, privacy: Privacy) -> Label | InvalidEvent:
    try:
        return decode_label(raw, privacy)
    except InvalidEvent as error:
        return error
