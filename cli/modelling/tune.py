"""``whyflag tune``."""

import json
from pathlib import Path

import click

from cli.options import transactions_options
from cli.progress import rejects_shown, stages


@click.command()
@transactions_options()
@click.option("--label-delay", default="7d", show_default=True, help="Delay until labels arrive; also the gap between periods.")
@click.option("--spec", "spec_name", default="default", show_default=True, help="Feature spec: default, handbook or compromise.")
@click.option("--currency", default=None, help="Currency of amounts in features. [default: the first transaction's]")
@click.option("--trials", type=click.IntRange(1), default=40, show_default=True, help="Maximum number of trials.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, min_open=True),
    default=15,
    show_default=True,
    help="Time limit of the search, after the file is read.",
)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="JSON file for the recipe.")
@click.option("--study", type=click.Path(path_type=Path, dir_okay=False), help="JSON file for the results of all trials.")
def command(
    transactions: Path, mapping: str, labels: Path | None, label_delay: str, spec_name: str, currency: str | None, trials: int,
    minutes: float, seed: int, out: Path, study: Path | None,
) -> None:  # fmt: skip
    """Search for a training recipe (booster settings and handling of class imbalance) on folds in time order."""
    import msgspec

    from cli.options import currency_of, delay_of, spec_of
    from core.settings import read_settings
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.train import load_history
    from training.tune import tune

    settings, delay = read_settings(), delay_of(label_delay)
    spec_of(spec_name, currency or "EUR")
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy)
    spec = spec_of(spec_name, currency or currency_of(source))
    with rejects_shown(source), stages() as progress:
        history = load_history(source, spec, labels, delay, settings.privacy, progress)
        found = tune(history, spec, label_delay_ms=delay, trials=trials, seconds=60 * minutes, seed=seed, progress=progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(msgspec.json.format(msgspec.json.encode(found.recipe)) + b"\n")
    if study:
        study.write_text(json.dumps(msgspec.to_builtins(found), indent=2) + "\n")
    click.echo("average precision by handling of class imbalance, with default booster settings:")
    for way, value in found.imbalance.items():
        click.echo(f"  {way:<14} {value:.4f}")
    click.echo(
        f"best of {len(found.trials)} trials: {found.average_precision:.4f}, default {found.default_average_precision:.4f}"
    )
    if len(found.trials) < trials:
        click.echo(f"the time was up after {len(found.trials)} of {trials} trials: allow more --minutes for a wider search")
    click.echo(f"recipe in {out}; use it with `whyflag train --recipe {out}`")
