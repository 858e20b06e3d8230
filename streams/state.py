"""What one hop knows of one partition, and how it is written to the checkpoint log."""

from collections.abc import Sequence

import numpy as np

from core.messages import Origin
from models.features.engine import UNBOUNDED, EntityEngine
from models.features.spec import Entity, FeatureSpec

LogRecord = tuple[bytes, bytes | None]
KEY_BYTES = 9  # the entity's place in the spec, then the key's hash


class PartitionState:
    """The engines of a hop's entities, and the highest origin offset seen from each origin: what comes below it is a replay."""

    def __init__(self, spec: FeatureSpec, entities: Sequence[Entity], ceiling: int = UNBOUNDED) -> None:
        """``ceiling`` is the most keys that an entity may have."""
        self.engines = [EntityEngine(spec, entity, ceiling=ceiling) for entity in entities]
        self.origins: dict[str, int] = {}

    @property
    def keys(self) -> int:
        """Number of keys held."""
        return sum(engine.keys for engine in self.engines)

    @property
    def digest(self) -> str:
        """Digest of what was written or loaded last, 16 hexadecimal digits an entity."""
        return "".join(f"{engine.digest:016x}" for engine in self.engines)

    def is_new(self, topic: str, origin: Origin) -> bool:
        """Whether this origin was not seen before; it is from here on. Rests on the order within an origin partition."""
        place = f"{topic}/{origin.partition}"
        if origin.offset <= self.origins.get(place, -1):
            return False
        self.origins[place] = origin.offset
        return True

    def changed(self) -> list[LogRecord]:
        """Log records of all keys that changed since the last call: a row, or None for a key that is not held any more."""
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
        """Take records of the log, in its order. What is no row is passed over; the digest tells whether it took the place of one."""
        newest = dict(records)
        for number, engine in enumerate(self.engines):
            own = [(key[1:], row) for key, row in newest.items() if len(key) == KEY_BYTES and key[0] == number]
            engine.load([row for _, row in own if row is not None])
            engine.remove(np.frombuffer(b"".join(key for key, row in own if row is None), "<u8"))

    @property
    def nbytes(self) -> int:
        """Memory held, bytes."""
        return int(np.sum([engine.nbytes for engine in self.engines]))
