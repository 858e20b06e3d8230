"""The first hop: what this card usually does. Owns card state, one engine a partition of ``transactions``."""

from typing import Any

import numpy as np

from core.errors import InvalidEvent
from core.messages import Label, Origin, Profiled, Transaction, decode_label, decode_transaction, encode
from core.metrics import DUPLICATES, KEYS, STATE_BYTES
from core.topics import LABELS, PROFILED, TRANSACTIONS
from models.features.engine import RECENT, EntityEngine
from models.features.spec import FeatureSpec
from streams.publishing import Output, Publisher
from streams.stage import dead_letter


class ProfileStage:
    """Adds the card's features to each transaction, and sends labels on to the merchant they are about."""

    name = "profile"
    topics = (TRANSACTIONS, LABELS)

    def __init__(self, spec: FeatureSpec, pan_key: bytes) -> None:
        self.spec, self._version, self._entity = spec, spec.version, spec.entities[0]
        self._pan_key = pan_key
        self._engines: dict[int, EntityEngine] = {}

    async def start(self, publisher: Publisher) -> None:
        """Nothing to open."""

    async def stop(self) -> None:
        """Nothing to close."""

    def assigned(self, partitions: dict[str, set[int]]) -> None:
        """Drop the cards of partitions that belong to others now."""
        owned = partitions.get(TRANSACTIONS, set())
        self._engines = {partition: engine for partition, engine in self._engines.items() if partition in owned}

    def engine(self, partition: int) -> EntityEngine:
        """The state of a partition's cards."""
        if partition not in self._engines:
            self._engines[partition] = EntityEngine(self.spec, self._entity)
        return self._engines[partition]

    async def process(self, topic: str, partition: int, records: list[Any]) -> list[Output]:
        """Profile a chunk of transactions, or forward a chunk of labels."""
        if topic == LABELS:
            return self._labels(records)
        outputs: list[Output] = []
        transactions: list[Transaction] = []
        origins: list[Origin] = []
        for record in records:
            try:
                transactions.append(decode_transaction(record.value, self._pan_key))
                origins.append(Origin(partition=partition, offset=record.offset))
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
        if transactions:
            outputs += self._profiled(partition, transactions, origins)
        return outputs

    def _profiled(self, partition: int, transactions: list[Transaction], origins: list[Origin]) -> list[Output]:
        engine = self.engine(partition)
        X, duplicate, recent = engine.update(engine.columns(transactions), RECENT)
        DUPLICATES.labels(self.name).inc(int(duplicate.sum()))
        KEYS.labels("card").set(sum(e.keys for e in self._engines.values()))
        STATE_BYTES.labels("card").set(sum(e.nbytes for e in self._engines.values()))
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
                        spec=self._version,
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
