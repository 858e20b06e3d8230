"""
Warm start: load past transactions into the state, so that a new worker already knows the cards and merchants.

``whyflag worker score --history`` (state in memory only) and ``whyflag state rebuild --history`` read a history file into the
engines. Each row goes to the engine of the partition that its key has in Kafka.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from kafka.partitioner.default import murmur2

from core.messages import Label
from core.topics import PROFILED, TRANSACTIONS
from models.features.columns import TransactionColumns, label_columns
from streams.kafka.publishing import Publisher, partition_of
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage

if TYPE_CHECKING:
    import pyarrow as pa  # only those who load a history need it


class HistoryChunk(NamedTuple):
    """
    A chunk of past transactions, in order: the ids that determine their partitions, and their columns.

    ``key_hashes`` has the hash of a record's key for cards whose key in Kafka is not the id, but the number that became this id.
    """

    card_ids: "pa.Array"
    merchant_ids: "pa.Array"
    columns: TransactionColumns
    key_hashes: Mapping[str, int] = {}


def _by_partition(keys: "pa.Array", partition: Callable[[str], int]) -> npt.NDArray[np.int64]:
    encoded = keys.dictionary_encode()
    of_key = np.array([partition(key) for key in encoded.dictionary.to_pylist()], np.int64)
    rows: npt.NDArray[np.int64] = of_key[encoded.indices.to_numpy()]
    return rows


def key_hash(key: bytes) -> int:
    """Return the hash by which Kafka's default partitioner chooses the partition of a key."""
    hashed: int = murmur2(key) & 0x7FFFFFFF
    return hashed


def _source_of(key_hashes: Mapping[str, int], count: int, card: str) -> int:
    """Return the partition of a card's transactions, as Kafka's default partitioner chooses it by their key."""
    known = key_hashes.get(card)
    return (key_hash(card.encode()) if known is None else known) % count


async def load_history(
    history: Iterable[HistoryChunk], labels: Sequence[Label], profile: ProfileStage, score: ScoreStage, publisher: Publisher
) -> int:
    """Load a history into both stages' state; return the number of transactions. Labels take effect at their label times."""
    count = await publisher.partitions(TRANSACTIONS)
    merchants = await publisher.partitions(PROFILED)
    for label in labels:
        for engine in score.state(partition_of(label.merchant_id.encode(), merchants)).engines:
            engine.apply_labels(label_columns([label]))
    total = 0
    for past in history:
        own = _by_partition(past.card_ids, partial(_source_of, past.key_hashes, count))
        marks = np.zeros(len(own), np.int64)
        for partition in np.unique(own):
            rows = np.flatnonzero(own == partition)
            marks[rows] = profile.engine(int(partition)).update(past.columns.rows(rows)).marks
        columns = past.columns.marked(marks)
        own = _by_partition(past.merchant_ids, lambda key: partition_of(key.encode(), merchants))
        for partition in np.unique(own):
            for engine in score.state(int(partition)).engines:
                engine.update(columns.rows(own == partition))
        total += len(past.columns.event_time)
    return total
