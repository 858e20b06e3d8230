"""Checks that a file fits a bundle. An unfit file would give silently wrong results."""

from pathlib import Path

import numpy as np

from core.errors import InputError
from models.features.columns import UNKNOWN_AMOUNT, Mark, TransactionColumns

_MOST_LATE = 0.05  # share of a chunk; real systems have far fewer late transactions
_MOST_UNPRICED = 0.5
_FEWEST = 200  # rows; a smaller chunk says too little about the file


def check_file_suits_bundle(columns: TransactionColumns, currency: str, path: Path) -> None:
    """
    Check a chunk of a file: it must be sorted by event time and in the bundle's currency.

    ``columns`` must carry the marks that the feature engine has set.

    Raises:
        InputError: if the chunk is unfit. The message says what to do.
    """
    n = len(columns.event_time)
    if n < _FEWEST:
        return
    late = int(columns.has(Mark.LATE).sum())
    if late > _MOST_LATE * n:
        raise InputError(
            f"{path} is not sorted by event time: {late:,} of {n:,} transactions are much older than rows before them, "
            "so windows would miss them. Sort the file by event time"
        )
    unpriced = int(np.sum(columns.amount == UNKNOWN_AMOUNT))
    if unpriced > _MOST_UNPRICED * n:
        raise InputError(
            f"{path}: {unpriced:,} of {n:,} transactions are in a currency other than {currency}, and the "
            f"feature spec has no exchange rate for them: train and use a bundle for their currency (`whyflag train --currency`)"
        )
