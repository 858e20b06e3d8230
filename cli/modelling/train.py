"""``whyflag train``."""

import json
import math
from pathlib import Path

import click

from cli.options import rates_of, transactions_options
from cli.progress import rejects_shown, stages, stderr


@click.command()
@transactions_options()
@click.option("--review-budget", default="300/day", show_default=True, help="Alerts that the team can review: N/day or N/week.")
@click.option("--label-delay", default="7d", show_default=True, help="Delay until labels arrive; also the gap between periods.")
@click.option("--spec", "spec_name", default="default", show_default=True, help="Feature spec: default, handbook or compromise.")
@click.option("--currency", default=None, help="Currency of amounts in features. [default: the first transaction's]")
@click.option(
    "--rate",
    "rates",
    multiple=True,
    help="Exchange rate of another currency, such as CHF=1.05: one CHF is 1.05 of --currency; repeatable.",
)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder for the bundle.")
@click.option("--recipe", type=click.Path(path_type=Path, dir_okay=False), help="Recipe file written by `whyflag tune`.")
@click.option(
    "--calibration",
    type=click.Choice(["auto", "sigmoid", "isotonic", "none"]),
    help="Calibration method; auto chooses by Brier score.",
)
@click.option(
    "--review-cost",
    type=click.FloatRange(0, min_open=True),
    help="Cost of one review; the alert budget is then the one that minimises total cost.",
)
@click.option(
    "--novel-share",
    type=click.FloatRange(0, 1),
    help="Share of the alerts reserved for transactions unlike the training data. [default: 0.05]",
)
@click.option(
    "--mlflow",
    "tracking",
    default=None,
    help="MLflow tracking URI: also log and register the bundle there (needs the extra mlflow).",
)
@click.option("--json", "as_json", is_flag=True, help="Print the metrics as JSON.")
def command(
    transactions: Path, mapping: str, labels: Path | None, review_budget: str, label_delay: str, spec_name: str,
    currency: str | None, rates: tuple[str, ...], seed: int, out: Path, recipe: Path | None, calibration: str | None, review_cost: float | None,
    novel_share: float | None, tracking: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Train, calibrate and evaluate a model bundle from a file."""
    from msgspec import structs

    from cli.options import currency_of, delay_of, spec_of
    from core.errors import InputError
    from core.money import exponent
    from core.settings import read_settings
    from models.bundles.bundle import check_empty
    from models.policy import parse_budget
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.train import CalibrationChoice, Recipe, budget_missed, budget_too_large, load_recipe, train

    settings = read_settings()
    spec_of(spec_name, currency or "EUR")
    check_empty(out)
    delay = delay_of(label_delay)
    budget = parse_budget(review_budget)
    chosen = load_recipe(recipe) if recipe else Recipe()
    if review_cost is not None and not math.isfinite(review_cost):
        raise InputError("--review-cost must be an amount of money such as 4.50")
    if tracking:
        from training import mlflow_tracking  # fails here, before training starts, if the extra is missing
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy, out / "rejects.jsonl")
    if currency is None:
        currency = currency_of(source)
    cost = None if review_cost is None else review_cost * 10 ** exponent(currency)
    given = {
        "calibration": CalibrationChoice(calibration) if calibration else None,
        "novel_share": novel_share,
        "review_cost": cost,
    }
    chosen = structs.replace(chosen, **{name: value for name, value in given.items() if value is not None})
    with rejects_shown(source, out / "rejects.jsonl"), stages() as progress:
        trained = train(
            source,
            spec_of(spec_name, currency, rates_of(rates)),
            labels=labels,
            alerts_per_day=budget,
            label_delay_ms=delay,
            out=out,
            seed=seed,
            privacy=settings.privacy,
            progress=progress,
            recipe=chosen,
        )
        if tracking:
            progress.stage("MLflow", 0)
            mlflow_tracking.record(tracking, out, trained.version, trained.metrics)
    version, metrics = trained.version, trained.metrics
    if trained.unpriced:
        stderr.print(
            f"[bold yellow]{trained.unpriced:,} transactions are in a currency other than {currency}[/] and have no exchange rate: all of them "
            "go to review. Give a rate with --rate, for example --rate CHF=1.05",
            highlight=False,
        )
    if (large := budget_too_large(metrics)) is not None:
        stderr.print(f"[bold yellow]warning:[/] {large}", highlight=False)
    if (missed := budget_missed(metrics.test.alerts_per_day, metrics.budget)) is not None:
        stderr.print(f"[bold red]warning:[/] {missed}", highlight=False)
    if as_json:
        import msgspec

        click.echo(json.dumps({"bundle": version, **msgspec.to_builtins(metrics)}))
        return
    click.echo(f"bundle {version} in {out}")
    click.echo(f"calibration: {metrics.calibration.method}; {metrics.novel.alerts} alerts for novelty")
    click.echo(f"test period, {metrics.split.test_begin} to {metrics.split.test_end}:")
    for name, value in metrics.test.shown().items():
        click.echo(f"  {name:<26} {'n/a' if value is None else f'{value:,}'}")
