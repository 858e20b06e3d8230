"""Single rows of the topic ``profiled``, however they were put together into records."""

import numpy as np

from streams.profiled import ForwardedLabel, decode_profiled, encode_rows


def single_rows(value: bytes) -> list[bytes]:
    """Return a record of its own for each row of a record; a label stays as it is."""
    found = decode_profiled(value)
    if isinstance(found, ForwardedLabel):
        return [value]
    return [record for i in range(found.count) for record in encode_rows(found.rows(np.array([i])))]
