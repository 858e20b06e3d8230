"""State of one stage for one partition, and its conversion to and from checkpoint log records."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.features.engine import UNBOUNDED, EntityEngine
from models.features.spec import Entity, FeatureSpec
from models.features.state import NEVER

LogRecord = tuple[bytes, bytes | None]
KEY_BYTES = 9  # one byte for the engine's index, eight for the key's hash


class PartitionState:
    """A stage's feature engines, and the highest offset seen per origin partition. Records up to that offset are replays."""

    def __init__(self, spec: FeatureSpec, entities: Sequence[Entity], ceiling: int = UNBOUNDED) -> None:
        """Create empty engines. ``ceiling`` is the maximum number of keys per entity."""
        self.engines = [EntityEngine(spec, entity, ceiling=ceiling) for entity in entities]
        self.origins: dict[str, int] = {}

    @property
    def keys(self) -> int:
        """Number of keys held."""
        return sum(engine.keys for engine in self.engines)

    @property
    def watermark(self) -> int | None:
        """Newest event time, epoch ms; None before the first transaction."""
        newest = max((engine.watermark for engine in self.engines), default=int(NEVER))
        return None if newest <= NEVER else newest

    @property
    def digest(self) -> str:
        """Digest of the rows last written or loaded, 16 hexadecimal digits per entity."""
        return "".join(f"{engine.digest:016x}" for engine in self.engines)

    def new(self, topic: str, partition: int, offsets: npt.NDArray[np.int64]) -> int:
        """
        Return how many of a record's offsets in its source topic are new, and remember them.

        ``offsets`` int64 [n] ascend, and so do those of one source partition from record to record: the new ones are the last.
        """
        place = f"{topic}/{partition}"
        new = len(offsets) - int(np.searchsorted(offsets, self.origins.get(place, -1), side="right"))
        if new:
            self.origins[place] = int(offsets[-1])
        return new

    def changed(self) -> list[LogRecord]:
        """Return log records of the keys that changed since the last call: the key's row, or None for a removed key."""
        records: list[LogRecord] = []
        for number, engine in enumerate(self.engines):
            (keys, offsets, words), removed = engine.changed()
            prefix, rows, begin = bytes([number]), words.astype("<i8", copy=False).tobytes(), 0
            encoded = keys.astype("<u8", copy=False).tobytes()
            for i, end in enumerate((offsets[1:] * 8).tolist()):
                records.append((prefix + encoded[8 * i : 8 * i + 8], rows[begin:end]))
                begin = end
            gone = removed.astype("<u8", copy=False).tobytes()
            records += [(prefix + gone[at : at + 8], None) for at in range(0, len(gone), 8)]
        return records

    def load(self, records: Sequence[LogRecord]) -> None:
        """Load log records, in log order. Invalid rows are skipped; the caller compares the digest to detect a lost row."""
        newest = dict(records)
        for number, engine in enumerate(self.engines):
            own = [(key[1:], row) for key, row in newest.items() if len(key) == KEY_BYTES and key[0] == number]
            engine.load([row for _, row in own if row is not None])
            engine.remove(np.frombuffer(b"".join(key for key, row in own if row is None), "<u8"))

    @property
    def nbytes(self) -> int:
        """Memory used, in bytes."""
        return int(np.sum([engine.nbytes for engine in self.engines]))
