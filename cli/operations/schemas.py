"""``whyflag schemas``."""

from pathlib import Path

import click


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), default=Path("docs/schemas"), show_default=True)
def command(out: Path) -> None:
    """Write the JSON Schemas of the messages. Changes that would break readers or writers are rejected."""
    from core.schemas import export

    for path in export(out):
        click.echo(path)
