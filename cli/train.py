"""``whyflag train``."""

import json
import re
from pathlib import Path

import click

from cli.options import transactions_options
from cli.progress import stages, stderr


@click.command()
@transactions_options
@click.option("--review-budget", default="300/day", show_default=True, help="Alerts the team can work, as N/day or N/week.")
@click.option("--label-delay", default="7d", show_default=True, help="How late labels come; the gap between the periods.")
@click.option("--spec", "spec_name", default="default", show_default=True, help="Feature spec: default or handbook.")
@click.option("--currency", default=None, help="Currency of the features' amounts. [default: that of the first transaction]")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the bundle.")
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def command(
    transactions: Path, mapping: str, labels: Path | None, review_budget: str, label_delay: str, spec_name: str,
    currency: str | None, seed: int, out: Path, as_json: bool,
) -> None:  # fmt: skip
    """Train, calibrate and evaluate a model bundle from a file."""
    from core.clock import duration_ms
    from core.errors import InputError
    from core.settings import read_settings
    from models.bundle import MANIFEST
    from models.features.spec import SPECS
    from models.policy import parse_budget
    from training.mapping import load_mapping
    from training.readers import TransactionFile
    from training.train import Progress, train

    settings = read_settings()
    if spec_name not in SPECS:
        raise InputError(f"no feature spec {spec_name!r}: choose {' or '.join(SPECS)}")
    if (out / MANIFEST).exists():
        raise InputError(f"{out} already holds a bundle and bundles are never overwritten: choose another --out")
    try:
        delay = duration_ms(label_delay)
    except ValueError as error:
        raise InputError(f"--label-delay: {error}") from None
    budget = parse_budget(review_budget)
    if currency is not None and not re.fullmatch("[A-Z]{3}", currency):
        raise InputError(f"--currency {currency!r} is no ISO 4217 code such as EUR")
    source = TransactionFile(transactions, load_mapping(mapping), settings.pan_key_bytes, out / "rejects.jsonl")
    if currency is None:
        first = next(source.chunks(1_000), None)
        if first is None:
            raise InputError(f"{transactions} holds no transactions")
        currency = first.table["currency"][0].as_py()
        source = TransactionFile(transactions, load_mapping(mapping), settings.pan_key_bytes, out / "rejects.jsonl")
    with stages() as progress:
        version, metrics = train(
            source,
            SPECS[spec_name](currency),
            labels=labels,
            alerts_per_day=budget,
            label_delay_ms=delay,
            out=out,
            seed=seed,
            pan_key=settings.pan_key_bytes,
            progress=Progress(progress.stage, progress.advance),
        )
    if source.rejected:
        stderr.print(f"{source.rejected:,} of {source.read:,} rows rejected: see {out / 'rejects.jsonl'}", highlight=False)
    if as_json:
        click.echo(json.dumps({"bundle": version, **metrics}))
        return
    test = metrics["test"]
    click.echo(f"bundle {version} in {out}")
    click.echo(f"on the test period, {metrics['split']['test_begin']} to {metrics['split']['test_end']}:")
    for name, value in test.items():
        click.echo(f"  {name.replace('_', ' '):<18} {'n/a' if value is None else f'{value:,}'}")
