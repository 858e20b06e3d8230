"""``whyflag sar``: draft the narrative of a suspicious-activity report."""

from contextlib import closing
from pathlib import Path

import click


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
    from analyst.queue import Queue
    from core.clock import SystemClock
    from core.errors import InputError, QueueError
    from core.settings import read_settings
    from explain.sar import draft

    if out is not None and out.exists():
        raise InputError(f"{out} already exists and may hold a completed draft: choose another --out")
    settings = read_settings()
    with closing(Queue(settings.database, SystemClock())) as queue:
        queued = queue.get(alert_id)
        if queued is None:
            raise QueueError(f"no alert {alert_id} in the queue: check the ID and WHYFLAG_DATABASE")
        card = queued.alert.transaction.card_id
        others = [one for one in queue.of_card(card, 200) if one.alert.alert_id != alert_id]
        made = draft(queued.alert, queued.explanation, queue.verdicts_of(alert_id), others, SystemClock().now_ms())
    if out is None:
        click.echo(made.text)
    else:
        out.write_text(made.text)
        click.echo(f"draft in {out}; {len(made.missing)} gaps: {'; '.join(made.missing)}" if made.missing else f"draft in {out}")
