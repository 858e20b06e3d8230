"""``whyflag sar``: draft the narrative of a suspicious-activity report."""

from pathlib import Path

import click

from cli.identity import opened_queue


@click.command()
@click.argument("alert_id")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Markdown file. [default: standard output]"
)
def command(alert_id: str, out: Path | None) -> None:
    """
    Draft the narrative of a suspicious-activity report on an alert: who, what, when, where, why and how.

    The draft lists its gaps at the end. A person must complete, check and sign it.
    """
    from analyst.verdicts import verdicts_of
    from core.clock import SystemClock
    from core.errors import InputError
    from explain.sar import draft

    if out is not None and out.exists():
        raise InputError(f"{out} already exists and may hold a completed draft: choose another --out")
    with opened_queue() as queue:
        queued = queue.required(alert_id)
        card = queued.alert.transaction.card_id
        others = [one for one in queue.of_card(card, 200) if one.alert.alert_id != alert_id]
        with queue.reading() as connection:
            given = verdicts_of(connection, alert_id)
        made = draft(queued.alert, queued.explanation, given, others, SystemClock().now_ms())
    if out is None:
        click.echo(made.text)
    else:
        out.write_text(made.text)
        click.echo(f"draft in {out}; {len(made.missing)} gaps: {'; '.join(made.missing)}" if made.missing else f"draft in {out}")
