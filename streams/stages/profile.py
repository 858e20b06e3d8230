"""The first stage: adds card features. Owns the card state, one engine per partition of ``transactions``."""

import asyncio
from collections.abc import Sequence
from time import time
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.clock import MS_PER_HOUR, Clock, SystemClock
from core.decoding import decode_label, decode_transactions
from core.errors import InvalidEvent, Refusal
from core.event_time import is_ahead, written_at
from core.messages import Label, Transaction
from core.metrics import DUPLICATES
from core.privacy.masking import Privacy
from core.privacy.sensitive import prepare
from core.topics import LABELS, PROFILE_CHECKPOINTS, PROFILED, TRANSACTIONS
from models.features.columns import TransactionColumns
from models.features.engine import RECENT, UNBOUNDED, EntityEngine, Mask, Update, compile_kernels
from models.features.spec import FeatureSpec
from streams.kafka.publishing import Outputs, Publisher, partition_of
from streams.profiled import ForwardedLabel, encode_label, encode_rows, profiled_rows
from streams.stages.stage import Chunk, StatefulStage, dead_letter
from streams.state import PartitionState
from streams.tracing import NO_TRACING, Tracing, parent_of


class Decoded(NamedTuple):
    """Valid transactions; partition, offset, write time (epoch ms) and traceparent of each; and dead letters for the other records."""

    transactions: list[Transaction]
    partitions: list[int]
    offsets: list[int]
    written: list[int]
    traces: list[str]
    letters: list[Outputs]


class ProfileStage(StatefulStage):
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
        super().__init__()
        self.spec, self.version, self._tracing = spec, spec.version, tracing
        self._privacy, self._clock, self._ceiling = privacy, clock or SystemClock(), ceiling
        self._destinations = 1  # partitions of ``profiled``
        self._columns = EntityEngine(spec, spec.entities[0]).columns

    async def start(self, publisher: Publisher) -> None:
        """Ask for the number of partitions, and compile the kernels, so that the first chunk does not wait for them."""
        self._destinations = await publisher.partitions(PROFILED)
        await asyncio.to_thread(prepare)
        await asyncio.to_thread(compile_kernels, self.spec)

    def new_state(self) -> PartitionState:
        """Return an empty state with the card engine."""
        return PartitionState(self.spec, self.spec.entities[:1], self._ceiling)

    def engine(self, partition: int) -> EntityEngine:
        """Return the card engine of a partition, creating it if needed."""
        return self.state(partition).engines[0]

    async def process(self, chunks: Sequence[Chunk]) -> list[Outputs]:
        """Profile transactions, and forward labels."""
        outputs = [output for chunk in chunks if chunk.topic == LABELS for output in self._labels(chunk)]
        decoded = self._decoded([chunk for chunk in chunks if chunk.topic == TRANSACTIONS])
        outputs += decoded.letters
        return [*outputs, *self._profiled(decoded)] if decoded.transactions else outputs

    def remember(self, topic: str, partition: int, records: list[Any]) -> None:
        """Update the state without publishing. Labels are ignored: they affect only the merchant state of the next stage."""
        if topic == TRANSACTIONS:
            decoded = self._decoded([Chunk(topic, partition, records)])
            self.engine(partition).update(self._columns(decoded.transactions))

    def _decoded(self, chunks: Sequence[Chunk]) -> Decoded:
        records = [record for chunk in chunks for record in chunk.records]
        partitions = [chunk.partition for chunk in chunks for _ in chunk.records]
        messages = decode_transactions([record.value for record in records], self._privacy)
        valid = [place for place, message in enumerate(messages) if not isinstance(message, InvalidEvent)]
        letters = [dead_letter(self.name, records[i], one) for i, one in enumerate(messages) if isinstance(one, InvalidEvent)]
        transactions = [message for message in messages if not isinstance(message, InvalidEvent)]
        ahead = self._from_the_future([records[i] for i in valid], "event_time", [one.event_time for one in transactions])
        if ahead:
            letters += [dead_letter(self.name, records[valid[i]], error) for i, error in ahead.items()]
            transactions = [one for i, one in enumerate(transactions) if i not in ahead]
            valid = [place for i, place in enumerate(valid) if i not in ahead]
        return Decoded(
            transactions,
            [partitions[place] for place in valid],
            [records[place].offset for place in valid],
            [records[place].timestamp for place in valid],
            [parent_of(records[place]) for place in valid] if self._tracing.enabled else [],
            letters,
        )

    def _from_the_future(self, records: Sequence[Any], field: str, times: Sequence[int]) -> dict[int, InvalidEvent]:
        """Return an error for each record whose event time is too far after the time at which it was written, by its place."""
        written = written_at(
            [record.timestamp for record in records], [record.timestamp_type for record in records], self._clock.now_ms()
        )
        ahead = np.array(times, np.int64) - written
        return {
            place: InvalidEvent(
                f"{field} is {ahead[place] / MS_PER_HOUR:.1f} hours after the record was written", Refusal.FROM_THE_FUTURE
            )
            for place in np.flatnonzero(is_ahead(np.array(times, np.int64), written)).tolist()
        }

    def _profiled(self, decoded: Decoded) -> list[Outputs]:
        """Return the records of the transactions that are no duplicates, one or more for each partition of their merchants."""
        began, transactions = time(), decoded.transactions
        columns = self._columns(transactions)
        partitions = np.array(decoded.partitions, np.int64)
        update = self._updated(columns, partitions)
        by_partition = np.argsort(partitions, kind="stable")
        fresh = by_partition[~update.duplicate[by_partition]]
        if len(fresh) < len(transactions):
            DUPLICATES.labels(self.name).inc(len(transactions) - len(fresh))
        traces = self._traces(decoded, began, update.duplicate)
        rows = profiled_rows(
            self.version, transactions, decoded.partitions, decoded.offsets, decoded.written, columns, update, traces
        ).rows(fresh)
        keys = [merchant.encode() for merchant in rows.text("merchant_id") if merchant is not None]
        own = np.array([partition_of(key, self._destinations) for key in keys], np.int64)
        outputs = []
        for destination in np.unique(own).tolist():
            records = list(encode_rows(rows.rows(np.flatnonzero(own == destination))))
            outputs.append(Outputs(PROFILED, [b""] * len(records), records, destination))
        return outputs

    def _updated(self, columns: TransactionColumns, partitions: npt.NDArray[np.int64]) -> Update:
        """Update the engine of each partition with its transactions; return the results in the order of the columns."""
        places = [np.flatnonzero(partitions == partition) for partition in dict.fromkeys(partitions.tolist())]
        parts = [self.engine(int(partitions[own[0]])).update(columns.rows(own), RECENT) for own in places]
        if len(parts) == 1:
            return parts[0]
        order = np.argsort(np.concatenate(places))
        return Update(*(np.concatenate(fields)[order] for fields in zip(*parts, strict=True)))

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

    def _labels(self, chunk: Chunk) -> list[Outputs]:
        outputs, forwarded = [], Outputs(PROFILED, [], [])
        for record in chunk.records:
            try:
                label: Label = decode_label(record.value, self._privacy)
                if ahead := self._from_the_future([record], "label_time", [label.label_time]):
                    raise ahead[0]
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
                continue
            forwarded.keys.append(label.merchant_id.encode())
            forwarded.values.append(encode_label(ForwardedLabel(chunk.partition, record.offset, label)))
        return [*outputs, forwarded]
