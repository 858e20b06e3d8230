"""``whyflag investigate``: let a language model investigate one alert with read-only tools."""

from contextlib import closing
from pathlib import Path

import click

from cli.identity import opened_queue, operator


@click.command()
@click.argument("alert_id")
@click.option("--steps", type=click.IntRange(1, 50), default=8, show_default=True, help="Maximum number of model answers.")
@click.option(
    "--tokens", type=click.IntRange(1_000), default=40_000, show_default=True, help="Maximum tokens of all prompts and answers."
)
@click.option(
    "--transcript", type=click.Path(path_type=Path, dir_okay=False), default=None, help="File for the whole conversation."
)
def command(alert_id: str, steps: int, tokens: int, transcript: Path | None) -> None:
    """
    Let the language model at WHYFLAG_LLM_URL investigate an alert in the queue.

    The model has read-only tools. Every sentence of its report is checked against the answers of these tools.
    """
    import msgspec

    from analyst.archive import Archive
    from cli.progress import stderr
    from core.clock import SystemClock
    from core.errors import ConflictError, SettingsError
    from core.settings import read_settings
    from explain.investigation import Entry, run
    from explain.narrators.client import language_model
    from explain.words import ENGLISH, writer
    from models.bundles.store import rule_words

    settings = read_settings()
    llm = language_model(settings)
    if llm is None:
        raise SettingsError("an investigation needs a language model: set WHYFLAG_LLM_URL and WHYFLAG_LLM_MODEL")
    archive = Archive(settings.archive_url, SystemClock(), settings.archive_days)
    with closing(archive), opened_queue() as queue:
        queued = queue.required(alert_id)
        if queued.explanation is None:
            raise ConflictError(f"alert {alert_id} has no explanation yet: check that `whyflag worker explain` is running")
        number = queue.begin_investigation(alert_id, operator(queue).name)

        def show(entry: Entry) -> None:
            if entry.who != "us":
                stderr.print(f"{entry.who}: {entry.what[:160]}", highlight=False, markup=False)

        message = None
        try:
            rules = rule_words(settings.bundle_dir)
            found = run(queued.alert, queued.explanation, queue, llm, rules, steps, tokens, history=archive, on_entry=show)
            message = msgspec.json.encode(found).decode()
        finally:
            queue.end_investigation(number, message)
    english, facts = writer(ENGLISH), found.facts_by_id()
    for claim in found.report:
        click.echo(f"{english.claim(claim, facts)}  [{', '.join(mention.fact_id for mention in claim.mentions)}]")
    click.echo(
        f"{found.ended}: {found.steps} answers, {found.tokens:,} tokens, {found.seconds:.1f} s; "
        f"{found.verification.checked} sentences checked, {found.verification.replaced} refused"
    )
    if transcript:
        transcript.write_text("\n\n".join(f"## {entry.who}\n{entry.what}" for entry in found.transcript) + "\n")
        click.echo(f"transcript: {transcript}")
