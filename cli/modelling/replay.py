"""``whyflag replay``."""

import json
from pathlib import Path

import click

from cli.options import transactions_options
from cli.progress import rejects_shown, stages


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), required=True, help="Folder of the model bundle.")
@transactions_options()
@click.option("--rules", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of rules and lists to apply.")
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for decisions and alerts.")
@click.option("--format", "form", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    bundle: Path, transactions: Path, mapping: str, labels: Path | None, rules: Path | None, out: Path, form: str, as_json: bool
) -> None:
    """Score and decide every transaction in a file without Kafka, with the stream's engine, scorer and policy."""
    from core.settings import read_settings
    from models.bundles.bundle import check_key, load_bundle
    from training.data.dataset import compile_with_progress
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.replay import replay

    settings = read_settings()
    loaded = load_bundle(bundle)
    check_key(loaded, settings.privacy.fingerprint)
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy, out / "rejects.jsonl")
    with rejects_shown(source, out / "rejects.jsonl"), stages() as progress:
        compile_with_progress(loaded.spec, progress)
        progress.stage("replaying")
        summary = replay(
            source,
            loaded,
            labels=labels,
            out=out,
            form=form,
            privacy=settings.privacy,
            progress=progress.advance,
            rules=rules,
        )
    if as_json:
        click.echo(json.dumps(summary.shown()))
        return
    for name, value in summary.shown().items():
        shown = "n/a" if value is None else f"{value:,}" if isinstance(value, int | float) else value
        click.echo(f"{name.replace('_', ' '):<18} {shown}")
