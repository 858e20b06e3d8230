"""``whyflag backtest``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.options import transactions_options
from cli.progress import rejects_shown, stages
from core.money import money

if TYPE_CHECKING:
    from models.bundles.metrics import BundleMetrics
    from training.evaluation.backtest import OutcomeChange, PolicyResult


def _thresholds(command: Any) -> Any:
    for name, of in (
        ("--against-decline", "the other policy's declines"),
        ("--against-review", "the other policy's reviews"),
        ("--decline", "declines"),
        ("--review", "reviews"),
    ):
        option = click.option(name, type=click.FloatRange(0, 1), default=None, help=f"Threshold of {of}. [default: the bundle's]")
        command = option(command)
    return command


@click.command()
@click.option(
    "--bundle",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Bundle, or store whose champion and rules are used.",
)
@click.option("--rules", type=click.Path(path_type=Path, dir_okay=False), help="TOML file of rules and lists to use.")
@_thresholds
@click.option(
    "--against", type=click.Path(path_type=Path, file_okay=False), help="Bundle or store to compare with. [default: --bundle]"
)
@click.option("--against-rules", type=click.Path(path_type=Path, dir_okay=False), help="Rules of the other policy, TOML.")
@transactions_options()
@click.option(
    "--from",
    "begin",
    type=click.DateTime(["%Y-%m-%d"]),
    help="Decide transactions from this day (UTC) on. [default: start of the bundle's test period]",
)
@click.option("--minutes-per-alert", type=click.FloatRange(0, min_open=True), default=2, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the differences: .csv or .parquet.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
def command(
    folder: Path, rules: Path | None, review: float | None, decline: float | None, against: Path | None, against_rules: Path | None,
    against_review: float | None, against_decline: float | None, transactions: Path, mapping: str, labels: Path | None,
    begin: datetime | None, minutes_per_alert: float, out: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Show what a policy (bundle, rules, thresholds) would have decided on past transactions, and where two policies differ."""
    import msgspec

    from core.errors import InputError
    from core.settings import read_settings
    from models.bundles.bundle import check_key
    from models.bundles.store import open_decider
    from models.scorer import Decider
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.evaluation import backtest

    settings = read_settings()

    def decider(place: Path, rules_file: Path | None, reviews: float | None, declines: float | None) -> Decider:
        found = open_decider(place)
        assert found.bundle is not None
        check_key(found.bundle, settings.privacy.fingerprint)
        bundle = backtest.with_thresholds(found.bundle, reviews, declines)
        if rules_file is None:
            return Decider(bundle, found.rules)
        from models.rules import load_rules

        return Decider(bundle, load_rules(rules_file, bundle.spec.feature_names))

    deciders = [decider(folder, rules, review, decline)]
    compared = any(value is not None for value in (against, against_rules, against_review, against_decline))
    if compared:
        deciders.append(decider(against or folder, against_rules, against_review, against_decline))
    elif out is not None:
        raise InputError("--out needs a second policy: give --against, --against-rules, --against-review or --against-decline")
    if out is not None and out.suffix not in (".csv", ".parquet"):
        raise InputError(f"--out {out} must end in .csv or .parquet")
    since = _since(begin, [bundle.metrics for d in deciders if (bundle := d.bundle)])
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy)
    played = []
    with rejects_shown(source), stages() as progress:
        for name, one in zip(("policy", "against"), deciders, strict=False):
            played.append(backtest.run_policy(name, source, labels, one, since, settings.privacy, progress))
    currencies = [d.bundle.spec.currency for d in deciders if d.bundle]
    results = [backtest.summary(one, currency, minutes_per_alert) for one, currency in zip(played, currencies, strict=True)]
    changes: list[OutcomeChange] | None = None
    if compared:
        table = backtest.differences(*played)
        changes = backtest.outcome_changes(table)
        if out is not None:
            backtest.write_differences(table, out)
    if as_json:
        click.echo(
            msgspec.json.encode(
                {"policies": [one.flat() for one in results]} | ({} if changes is None else {"differences": changes})
            )
        )
        return
    _show(results, changes)
    if out is not None:
        click.echo(f"differences in {out}")


def _since(begin: datetime | None, metrics: "list[BundleMetrics]") -> int:
    """
    Return the time (epoch ms) from which to decide.

    By default, this is the latest start of a bundle's test period, so that no policy is measured on data used to make it.
    """
    if begin is not None:
        return int(begin.replace(tzinfo=UTC).timestamp() * 1000)
    return max(one.split.test_begin_ms for one in metrics)


def _show(results: "list[PolicyResult]", changes: "list[OutcomeChange] | None") -> None:
    """Print one column for each policy, then its rules, then the differences; amounts in major units with their currency."""
    rows: dict[str, list[str]] = {"policy": [one.policy for one in results]}
    for name in results[0].measures.shown():
        values = [one.measures.shown()[name] for one in results]
        rows["share of amount caught" if name == "amount caught" else name] = [
            "n/a" if value is None else f"{value:,}" for value in values
        ]
    rows |= {
        "declined": [f"{one.declined:,}" for one in results],
        "fraud caught": [money(one.money_caught, one.currency) for one in results],
        "fraud missed": [money(one.money_lost, one.currency) for one in results],
        "analyst hours per day": [f"{one.analyst_hours_per_day:,}" for one in results],
    }
    for name, words in rows.items():
        click.echo(f"{name:<22}" + "".join(f"{word:>22}" for word in words))
    for one in results:
        if one.rules:
            click.echo(f"\nrules of {one.policy:<24}{'hits':>8}{'frauds':>8}{'precision':>11}{'fraud caught':>20}")
            for rule in one.rules:
                precision = "n/a" if rule.precision is None else f"{rule.precision:.4f}"
                caught = money(rule.amount_caught, one.currency)
                click.echo(f"  {rule.rule:<31}{rule.hits:>8,}{rule.frauds:>8,}{precision:>11}{caught:>20}")
    if changes is None:
        return
    click.echo(f"\n{'against → policy':<24}{'transactions':>14}{'frauds':>8}{'fraud amount':>20}")
    for change in changes:
        amount = money(change.fraud_amount, results[0].currency)
        click.echo(f"{change.before + ' → ' + change.after:<24}{change.transactions:>14,}{change.frauds:>8,}{amount:>20}")
    if not changes:
        click.echo("  none: both policies decide alike")
