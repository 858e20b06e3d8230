"""The first hop: what this card usually does. Owns card state, one engine a partition of ``transactions``."""

from contextlib import suppress
from typing import Any

import numpy as np

from core.clock import MS_PER_DAY
from core.errors import InvalidEvent
from core.messages import Label, Origin, Profiled, Transaction, decode_label, decode_transaction, encode
from core.metrics import DUPLICATES
from core.topics import LABELS, PROFILE_CHECKPOINTS, PROFILED, TRANSACTIONS
from models.features.engine import RECENT, EntityEngine
from models.features.spec import FeatureSpec
from streams.publishing import Output, Publisher
from streams.stage import dead_letter
from streams.state import PartitionState

# An event from the future would make all that the card does from now on look long past. Clocks and time zones err by less than this.
_AHEAD_MS = MS_PER_DAY


class ProfileStage:
    """Adds the card's features to each transaction, and sends labels on to the merchant they are about."""

    name = "profile"
    topics = (TRANSACTIONS, LABELS)
    checkpoints = PROFILE_CHECKPOINTS
    bundle = ""

    def __init__(self, spec: FeatureSpec, pan_key: bytes) -> None:
        self.spec, self.version = spec, spec.version
        self._pan_key = pan_key
        self.states: dict[int, PartitionState] = {}

    async def start(self, publisher: Publisher) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def new_state(self) -> PartitionState:
        """One engine: the card's."""
        return PartitionState(self.spec, self.spec.entities[:1])

    def engine(self, partition: int) -> EntityEngine:
        """The engine of a partition's cards."""
        if partition not in self.states:
            self.states[partition] = self.new_state()
        return self.states[partition].engines[0]

    async def process(self, topic: str, partition: int, records: list[Any]) -> list[Output]:
        """Profile a chunk of transactions, or forward a chunk of labels."""
        if topic == LABELS:
            return self._labels(records)
        outputs: list[Output] = []
        transactions: list[Transaction] = []
        origins: list[Origin] = []
        for record in records:
            try:
                transactions.append(self._decoded(record))
                origins.append(Origin(partition=partition, offset=record.offset))
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
        if transactions:
            outputs += self._profiled(partition, transactions, origins)
        return outputs

    def remember(self, topic: str, partition: int, records: list[Any]) -> None:
        """Take records into the state and publish nothing. Labels are the merchant's: they pass through here."""
        if topic == TRANSACTIONS:
            transactions = []
            for record in records:
                with suppress(InvalidEvent):
                    transactions.append(self._decoded(record))
            engine = self.engine(partition)
            engine.update(engine.columns(transactions))

    def _decoded(self, record: Any) -> Transaction:
        transaction = decode_transaction(record.value, self._pan_key)
        if record.timestamp > 0 and transaction.event_time > record.timestamp + _AHEAD_MS:
            raise InvalidEvent(
                f"event_time is {(transaction.event_time - record.timestamp) / _AHEAD_MS:.1f} days after the record was written"
            )
        return transaction

    def _profiled(self, partition: int, transactions: list[Transaction], origins: list[Origin]) -> list[Output]:
        engine = self.engine(partition)
        X, duplicate, recent = engine.update(engine.columns(transactions), RECENT)
        DUPLICATES.labels(self.name).inc(int(duplicate.sum()))
        features = np.ascontiguousarray(X, "<f4")
        earlier = np.ascontiguousarray(recent, "<i8")
        return [
            Output(
                PROFILED,
                transactions[i].merchant_id.encode(),
                encode(
                    Profiled(
                        origin=origins[i],
                        transaction=transactions[i],
                        features=features[i].tobytes(),
                        recent=earlier[i].tobytes(),
                        spec=self.version,
                    )
                ),
            )
            for i in np.flatnonzero(~duplicate)
        ]

    def _labels(self, records: list[Any]) -> list[Output]:
        outputs = []
        for record in records:
            try:
                label: Label = decode_label(record.value, self._pan_key)
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
                continue
            origin = Origin(partition=record.partition, offset=record.offset)
            outputs.append(Output(PROFILED, label.merchant_id.encode(), encode(Profiled(origin=origin, label=label))))
        return outputs
