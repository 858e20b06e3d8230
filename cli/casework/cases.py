"""``whyflag cases``: inspect, correct and rebuild the casebook."""

from pathlib import Path

import click

from cli.identity import opened_queue, operator

_why = click.option("--reason", required=True, help="Reason, recorded in the audit trail.")


@click.group()
def command() -> None:
    """Inspect and correct the casebook, and rebuild its index."""


@command.command("list")
def list_() -> None:
    """Count the cases of each bundle by outcome."""
    from analyst.cases import Cases

    with opened_queue() as queue:
        counts = Cases(queue).counts()
    for bundle, outcome, count in counts:
        click.echo(f"{bundle}  {outcome:<10}  {count:>9,}")
    if not counts:
        click.echo("the casebook is empty: run `whyflag worker explain` or `whyflag cases rebuild` to fill it")


@command.command()
@click.argument("case_id")
def show(case_id: str) -> None:
    """Show a case as it is in each bundle's casebook."""
    from datetime import UTC, datetime

    from analyst.cases import Cases
    from core.display import quoted
    from core.errors import CasebookError

    with opened_queue() as queue:
        found = Cases(queue).find(case_id)
    if not found:
        raise CasebookError(f"no case {case_id} in the casebook")
    for bundle, case in found:
        closed = datetime.fromtimestamp(case.closed_time / 1000, UTC)
        typology = f", {case.typology}" if case.typology else ""
        click.echo(f"{bundle}  {case.outcome}{typology}, closed {closed:%Y-%m-%d %H:%M} UTC")
        if case.note:
            click.echo(f"  note: “{quoted(case.note, 500)}”")


@command.command()
@click.argument("case_id")
@click.option("--outcome", type=click.Choice(["fraud", "legitimate"]), required=True, help="The correct outcome.")
@_why
def correct(case_id: str, outcome: str, reason: str) -> None:
    """Change the outcome of a case."""
    from analyst.cases import Cases
    from core.messages import Finding

    with opened_queue() as queue:
        count = Cases(queue).correct(case_id, Finding(outcome), operator(queue).name, reason)
    click.echo(f"case {case_id} is now {outcome} in {count} casebook{'' if count == 1 else 's'}")


@command.command()
@click.argument("case_id")
@_why
def delete(case_id: str, reason: str) -> None:
    """Delete a case permanently."""
    from analyst.cases import Cases

    with opened_queue() as queue:
        count = Cases(queue).delete(case_id, operator(queue).name, reason)
    click.echo(f"case {case_id} deleted from {count} casebook{'' if count == 1 else 's'}")


@command.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Model bundle. [default: WHYFLAG_BUNDLE]")
def rebuild(bundle: Path | None) -> None:
    """Rebuild the index of a bundle's casebook from the cases in SQL."""
    from analyst.cases import Cases
    from cli.progress import stages
    from core.settings import read_settings
    from models.bundles.signing import verifying_keys
    from models.bundles.store import open_bundle
    from streams.stages.explain import casebook_of

    settings = read_settings()
    with opened_queue() as queue, stages() as progress:
        loaded = open_bundle(bundle or settings.bundle_dir, verifying_keys(settings))
        progress.stage("building the index from SQL", 1)
        casebook = casebook_of(loaded, Cases(queue), settings.casebook, anew=True)
        casebook.save()
        progress.advance(1)
    click.echo(f"casebook {casebook.version}: {len(casebook):,} cases in {settings.casebook}")
