"""``whyflag sar``: a draft of a suspicious-activity narrative."""

from contextlib import closing
from pathlib import Path

import click


@click.command()
@click.argument("alert_id")
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Markdown file. [default: the terminal]"
)
def command(alert_id: str, out: Path | None) -> None:
    """
    Draft the narrative of a suspicious-activity report about an alert: who, what, when, where, why and how.

    Gaps are named at its end; a person completes, checks and signs it.
    """
    from analyst.queue import Queue
    from core.clock import SystemClock
    from core.errors import InputError, QueueError
    from core.settings import read_settings
    from explain.sar import draft

    if out is not None and out.exists():
        raise InputError(f"{out} exists: a draft that somebody may have completed is not overwritten")
    settings = read_settings()
    with closing(Queue(settings.database, SystemClock())) as queue:
        queued = queue.get(alert_id)
        if queued is None:
            raise QueueError(f"no alert {alert_id} in the queue of WHYFLAG_DATABASE")
        card = queued.alert.transaction.card_id
        others = [one for one in queue.of_card(card, 200) if one.alert.alert_id != alert_id]
        made = draft(queued.alert, queued.explanation, queue.verdicts_of(alert_id), others, SystemClock().now_ms())
    if out is None:
        click.echo(made.text)
    else:
        out.write_text(made.text)
        click.echo(f"draft in {out}; {len(made.missing)} gaps: {'; '.join(made.missing)}" if made.missing else f"draft in {out}")
