"""``whyflag database``."""

import click


@click.group()
def command() -> None:
    """Migrate the SQL databases of the queue and the archive."""


@command.command()
@click.option(
    "--revision", default=None, help="Revision to go to, forward or back. [default: the newest that this version knows]"
)
def migrate(revision: str | None) -> None:
    """
    Change the tables to those that this version needs.

    Workers and the console do this too when they start. Before going back to an older version, stop them, and migrate with the newer
    version to the revision that the older one needs; CHANGELOG.md names it. Back up the database first: going back drops what the
    older tables cannot hold.
    """
    from analyst.database import database_at
    from analyst.database import migrate as migrate_to
    from core.settings import read_settings

    settings = read_settings()
    for setting, url in {"WHYFLAG_DATABASE": settings.database, "WHYFLAG_ARCHIVE": settings.archive}.items():
        if not url:
            continue
        engine = database_at(url, setting)
        try:
            found = migrate_to(engine, setting, revision)
        finally:
            engine.dispose()
        click.echo(f"{setting}: revision {found}")
