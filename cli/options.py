"""Options that several commands share."""

from pathlib import Path
from typing import Any

import click


def spec_of(name: str, currency: str) -> Any:
    """
    The feature spec of a name, in a currency.

    Raises:
        InputError: if there is none, or the currency is no ISO 4217 code.
    """
    import re

    from core.errors import InputError
    from models.features.spec import SPECS

    if name not in SPECS:
        raise InputError(f"no feature spec {name!r}: choose {' or '.join(SPECS)}")
    if not re.fullmatch("[A-Z]{3}", currency):
        raise InputError(f"--currency {currency!r} is no ISO 4217 code such as EUR")
    return SPECS[name](currency)


def currency_of(source: Any) -> str:
    """
    The currency of a file's first transaction.

    Raises:
        InputError: if it holds none.
    """
    from core.errors import InputError

    first = next(source.chunks(1_000), None)
    if first is None:
        raise InputError(f"{source.path} holds no transactions")
    return str(first.table["currency"][0].as_py())


def delay_of(text: str) -> int:
    """
    A label delay in milliseconds.

    Raises:
        InputError: if it is no duration.
    """
    from core.clock import duration_ms
    from core.errors import InputError

    try:
        return duration_ms(text)
    except ValueError as error:
        raise InputError(f"--label-delay: {error}") from None


def transactions_options(command: Any) -> Any:
    """``--transactions``, ``--mapping`` and ``--labels``."""
    for option in (
        click.option("--labels", type=click.Path(path_type=Path), help="File of labels, where the transactions hold none."),
        click.option("--mapping", default="whyflag", show_default=True, help="Name of an included mapping, or a TOML file."),
        click.option("--transactions", type=click.Path(path_type=Path), required=True, help="CSV, Parquet or JSON Lines file."),
    ):
        command = option(command)
    return command
