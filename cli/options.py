"""Options shared by several commands."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click


def rates_of(given: tuple[str, ...]) -> dict[str, float]:
    """
    Return exchange rates by currency from texts such as ``CHF=1.05``.

    Raises:
        InputError: if a text has another form.
    """
    import re

    from core.errors import InputError

    rates = {}
    for text in given:
        match = re.fullmatch(r"([A-Z]{3})=([0-9]{1,9}(?:\.[0-9]{1,9})?)", text)
        if match is None:
            raise InputError(f"--rate {text!r} is not an exchange rate: write for example CHF=1.05")
        rates[match[1]] = float(match[2])
    return rates


def spec_of(name: str, currency: str, rates: dict[str, float] | None = None) -> Any:
    """
    Return the named feature spec for a currency, with exchange rates of other currencies.

    Raises:
        InputError: if there is no such spec, or the currency is not an ISO 4217 code.
    """
    import re

    from core.errors import InputError
    from models.features.spec import SPECS

    if name not in SPECS:
        raise InputError(f"no feature spec {name!r}: choose {' or '.join(SPECS)}")
    if not re.fullmatch("[A-Z]{3}", currency):
        raise InputError(f"--currency {currency!r} is not an ISO 4217 code: give one such as EUR")
    from msgspec import structs

    from core.money import minor_per_major

    spec = SPECS[name](currency)
    # people give rates between major units, a spec holds them between minor units
    minor = {other: rate * minor_per_major(currency) / minor_per_major(other) for other, rate in (rates or {}).items()}
    return structs.replace(spec, rates=minor) if minor else spec


def currency_of(source: Any) -> str:
    """
    Return the currency of a file's first transaction.

    Raises:
        InputError: if the file holds no transactions.
    """
    from core.errors import InputError

    first = next(source.chunks(1_000), None)
    if first is None:
        raise InputError(f"{source.path} holds no transactions")
    return str(first.table["currency"][0].as_py())


def delay_of(text: str) -> int:
    """
    Return a label delay in milliseconds.

    Raises:
        InputError: if the text is not a duration.
    """
    from core.clock import duration_ms
    from core.errors import InputError

    try:
        return duration_ms(text)
    except ValueError as error:
        raise InputError(f"--label-delay: {error}") from None


def transactions_options(required: bool = True) -> Callable[[Any], Any]:
    """Return a decorator that adds the options ``--transactions``, ``--mapping`` and ``--labels`` to a command."""

    def add(command: Any) -> Any:
        for option in (
            click.option("--labels", type=click.Path(path_type=Path), help="File of labels, if the transactions have none."),
            click.option("--mapping", default="whyflag", show_default=True, help="Name of a built-in mapping, or a TOML file."),
            click.option(
                "--transactions",
                type=click.Path(path_type=Path),
                required=required,
                help="CSV, Parquet or JSON Lines: a file, a folder, or a quoted pattern.",
            ),
        ):
            command = option(command)
        return command

    return add
