"""``whyflag backtest``."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.options import transactions_options
from cli.progress import stages


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
@transactions_options
@click.option(
    "--from",
    "begin",
    type=click.DateTime(["%Y-%m-%d"]),
    help="First day (UTC) to decide. [default: start of the bundle's test period]",
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
    with stages() as progress:
        played = [
            backtest.play(
                name, TransactionFile(transactions, load_mapping(mapping), settings.privacy), labels, one, since,
                settings.privacy, progress,
            )
            for name, one in zip(("policy", "against"), deciders, strict=False)
        ]  # fmt: skip
    report: dict[str, Any] = {"policies": [backtest.summary(one, minutes_per_alert) for one in played]}
    if compared:
        table = backtest.differences(*played)
        report["differences"] = backtest.difference_summary(table)
        if out is not None:
            backtest.write_differences(table, out)
    if as_json:
        click.echo(json.dumps(report))
        return
    _show(report)
    if out is not None:
        click.echo(f"differences in {out}")


def _since(begin: datetime | None, metrics: list[dict[str, Any]]) -> int:
    """Return the time (epoch ms) from which to decide. By default, no policy is measured on data used to make it."""
    if begin is not None:
        return int(begin.replace(tzinfo=UTC).timestamp() * 1000)
    return max(int(datetime.fromisoformat(found["split"]["test_begin"] + "+00:00").timestamp() * 1000) for found in metrics)


def _show(report: dict[str, Any]) -> None:
    policies = report["policies"]
    for name in policies[0]:
        if name == "rules":
            continue
        values = [policy[name] for policy in policies]
        words = ["n/a" if value is None else f"{value:,}" if isinstance(value, int | float) else value for value in values]
        click.echo(f"{name.replace('_', ' '):<22}" + "".join(f"{word:>16}" for word in words))
    for policy in policies:
        if policy["rules"]:
            click.echo(f"\nrules of {policy['policy']:<24}{'hits':>8}{'frauds':>8}{'precision':>11}{'amount caught':>16}")
            for rule in policy["rules"]:
                precision = "n/a" if rule["precision"] is None else f"{rule['precision']:.4f}"
                click.echo(
                    f"  {rule['rule']:<31}{rule['hits']:>8,}{rule['frauds']:>8,}{precision:>11}{rule['amount_caught']:>16,}"
                )
    if "differences" in report:
        click.echo(f"\n{'against → policy':<24}{'transactions':>14}{'frauds':>8}{'fraud amount':>14}")
        for row in report["differences"]:
            click.echo(
                f"{row['from'] + ' → ' + row['to']:<24}{row['transactions']:>14,}{row['frauds']:>8,}{row['fraud_amount']:>14,}"
            )
        if not report["differences"]:
            click.echo("  none: both policies decide alike")
