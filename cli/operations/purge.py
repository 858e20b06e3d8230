"""``whyflag purge``."""

from datetime import UTC, datetime

import click

from cli.identity import opened_queue, operator


@click.command()
@click.option("--days", type=click.IntRange(1, 36_500), default=None, help="Retention. [default: WHYFLAG_RETENTION_DAYS]")
@click.option("--dry-run", is_flag=True, help="Only say how many alerts would be deleted.")
def command(days: int | None, dry_run: bool) -> None:
    """
    Delete alerts that were closed before the retention, with their messages, verdicts and investigations.

    Cases in the casebook and the audit trail stay; the trail records each deletion.
    """
    from analyst.retention import purge
    from core.settings import read_settings

    with opened_queue() as queue:
        purged = purge(queue, operator(queue), days or read_settings().retention_days, dry_run)
    before = datetime.fromtimestamp(purged.before / 1000, UTC)
    click.echo(f"{purged.alerts:,} alerts closed before {before:%Y-%m-%d} {'would be' if dry_run else 'were'} deleted")
