"""The first stage: adds card features. Owns the card state, one engine per partition of ``transactions``."""

import asyncio
from time import time
from typing import Any, NamedTuple

import numpy as np

from core.clock import MS_PER_HOUR, Clock, SystemClock
from core.decoding import decode_label, decode_transactions
from core.errors import InvalidEvent, Refusal
from core.event_time import is_ahead, written_at
from core.messages import Label, Transaction
from core.metrics import DUPLICATES
from core.privacy.masking import Privacy
from core.privacy.sensitive import prepare
from core.topics import LABELS, PROFILE_CHECKPOINTS, PROFILED, TRANSACTIONS
from models.features.engine import RECENT, UNBOUNDED, EntityEngine, Mask, compile_kernels
from models.features.spec import FeatureSpec
from streams.kafka.publishing import Outputs, Publisher, partition_of
from streams.profiled import ForwardedLabel, encode_label, encode_rows, profiled_rows
from streams.stages.stage import StageWithoutDecider, dead_letter
from streams.state import PartitionState
from streams.tracing import NO_TRACING, Tracing, parent_of


class Decoded(NamedTuple):
    """Valid transactions; the offset, write time (epoch ms) and traceparent of each; and dead letters for the other records."""

    transactions: list[Transaction]
    offsets: list[int]
    written: list[int]
    traces: list[str]
    letters: list[Outputs]


class ProfileStage(StageWithoutDecider):
    """Adds card features to each transaction, and forwards each label to the partition of its merchant."""

    name = "profile"
    topics = (TRANSACTIONS, LABELS)
    checkpoints = PROFILE_CHECKPOINTS

    def __init__(
        self,
        spec: FeatureSpec,
        privacy: Privacy,
        clock: Clock | None = None,
        ceiling: int = UNBOUNDED,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """``clock`` caps record times that the broker did not set; ``ceiling`` is the maximum number of cards per partition."""
        self.spec, self.version, self._tracing = spec, spec.version, tracing
        self._privacy, self._clock, self._ceiling = privacy, clock or SystemClock(), ceiling
        self._destinations = 1  # partitions of ``profiled``
        self.states: dict[int, PartitionState] = {}

    async def start(self, publisher: Publisher) -> None:
        """Ask for the number of partitions, and compile the kernels, so that the first chunk does not wait for them."""
        self._destinations = await publisher.partitions(PROFILED)
        await asyncio.to_thread(prepare)
        await asyncio.to_thread(compile_kernels, self.spec)

    async def stop(self) -> None:
        """Do nothing: there is nothing to close."""

    def new_state(self) -> PartitionState:
        """Return an empty state with the card engine."""
        return PartitionState(self.spec, self.spec.entities[:1], self._ceiling)

    def engine(self, partition: int) -> EntityEngine:
        """Return the card engine of a partition, creating it if needed."""
        if partition not in self.states:
            self.states[partition] = self.new_state()
        return self.states[partition].engines[0]

    async def process(self, topic: str, partition: int, records: list[Any]) -> list[Outputs]:
        """Profile a chunk of transactions, or forward a chunk of labels."""
        if topic == LABELS:
            return self._labels(records)
        decoded = self._decoded(records)
        return [*decoded.letters, *self._profiled(partition, decoded)] if decoded.transactions else decoded.letters

    def remember(self, topic: str, partition: int, records: list[Any]) -> None:
        """Update the state without publishing. Labels are ignored: they affect only the merchant state of the next stage."""
        if topic == TRANSACTIONS:
            engine = self.engine(partition)
            engine.update(engine.columns(self._decoded(records).transactions))

    def _decoded(self, records: list[Any]) -> Decoded:
        found = Decoded([], [], [], [], [])
        for record, decoded in zip(
            records, decode_transactions([record.value for record in records], self._privacy), strict=True
        ):
            if isinstance(decoded, InvalidEvent):
                found.letters.append(dead_letter(self.name, record, decoded))
            elif error := self._from_the_future(record, "event_time", decoded.event_time):
                found.letters.append(dead_letter(self.name, record, error))
            else:
                found.transactions.append(decoded)
                found.offsets.append(record.offset)
                found.written.append(record.timestamp)
                found.traces.append(parent_of(record) if self._tracing.enabled else "")
        return found

    def _from_the_future(self, record: Any, field: str, time: int) -> InvalidEvent | None:
        """Return an error if an event time is too far after the time at which its record was written, else None."""
        written = written_at(record.timestamp, record.timestamp_type, self._clock.now_ms())
        if not is_ahead(time, written):
            return None
        hours = (time - written) / MS_PER_HOUR
        return InvalidEvent(f"{field} is {hours:.1f} hours after the record was written", Refusal.FROM_THE_FUTURE)

    def _profiled(self, partition: int, decoded: Decoded) -> list[Outputs]:
        """Return the records of the transactions that are no duplicates, one or more for each partition of their merchants."""
        began, transactions = time(), decoded.transactions
        engine = self.engine(partition)
        columns = engine.columns(transactions)
        update = engine.update(columns, RECENT)
        fresh = np.flatnonzero(~update.duplicate)
        if len(fresh) < len(transactions):
            DUPLICATES.labels(self.name).inc(len(transactions) - len(fresh))
        traces = self._traces(decoded, began, update.duplicate)
        rows = profiled_rows(
            self.version, partition, transactions, decoded.offsets, decoded.written, columns, update, traces
        ).rows(fresh)
        keys = [merchant.encode() for merchant in rows.text("merchant_id") if merchant is not None]
        own = np.array([partition_of(key, self._destinations) for key in keys], np.int64)
        outputs = []
        for destination in np.unique(own).tolist():
            records = list(encode_rows(rows.rows(np.flatnonzero(own == destination))))
            outputs.append(Outputs(PROFILED, [b""] * len(records), records, destination))
        return outputs

    def _traces(self, decoded: Decoded, began: float, duplicate: Mask) -> list[str]:
        """Record the spans of the traced transactions. Return the traceparent of each transaction, or nothing if none is traced."""
        if not self._tracing.enabled:
            return []
        return [
            self._tracing.span("profile", parent, began, {"transaction_id": transaction.transaction_id})
            if not repeated and (parent or self._tracing.chosen())
            else ""
            for transaction, parent, repeated in zip(decoded.transactions, decoded.traces, duplicate.tolist(), strict=True)
        ]

    def _labels(self, records: list[Any]) -> list[Outputs]:
        outputs, forwarded = [], Outputs(PROFILED, [], [])
        for record in records:
            try:
                label: Label = decode_label(record.value, self._privacy)
                if error := self._from_the_future(record, "label_time", label.label_time):
                    raise error
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
                continue
            forwarded.keys.append(label.merchant_id.encode())
            forwarded.values.append(encode_label(ForwardedLabel(record.partition, record.offset, label)))
        return [*outputs, forwarded]
