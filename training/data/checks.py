"""What makes a file unfit for a bundle, so that its result would be silently wrong."""

from pathlib import Path

import numpy as np

from core.errors import InputError
from models.features.columns import UNKNOWN_AMOUNT, Mark, TransactionColumns

_MOST_LATE = 0.05  # of a piece of the file; stragglers of real systems are far fewer
_MOST_UNPRICED = 0.5
_FEWEST = 200  # rows of a piece that say something of the file


def check_fit(columns: TransactionColumns, currency: str, path: Path) -> None:
    """
    Refuse a piece of a file, marked by the engine, that is out of order or in another currency.

    Raises:
        InputError: saying what to do.
    """
    n = len(columns.event_time)
    if n < _FEWEST:
        return
    late = int(columns.has(Mark.LATE).sum())
    if late > _MOST_LATE * n:
        raise InputError(
            f"{path} is not sorted by event time: {late:,} of {n:,} transactions come long after newer ones, and windows would miss them. "
            "Sort it by event time"
        )
    unpriced = int(np.sum(columns.amount == UNKNOWN_AMOUNT))
    if unpriced > _MOST_UNPRICED * n:
        raise InputError(
            f"{path}: {unpriced:,} of {n:,} transactions are in a currency other than {currency}, without an exchange rate in the feature "
            f"spec: use a bundle of their currency (`whyflag train --currency`)"
        )
