"""Options that several commands share."""

from pathlib import Path
from typing import Any

import click


def transactions_options(command: Any) -> Any:
    """``--transactions``, ``--mapping`` and ``--labels``."""
    for option in (
        click.option("--labels", type=click.Path(path_type=Path), help="File of labels, where the transactions hold none."),
        click.option("--mapping", default="whyflag", show_default=True, help="Name of an included mapping, or a TOML file."),
        click.option("--transactions", type=click.Path(path_type=Path), required=True, help="CSV, Parquet or JSON Lines file."),
    ):
        command = option(command)
    return command
