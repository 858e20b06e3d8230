"""``whyflag benchmark``."""

import json
from pathlib import Path
from typing import Any

import click

from cli.progress import stages

_HEADS = ("AUC", "AP", "CP@100")


@click.group()
def command() -> None:
    """Compare the models with published results."""


@command.command()
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Folder with the handbook's transactions.parquet.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--ablation", is_flag=True, help="Measure the value of each feature group on the validation folds instead.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="JSON file for the report.")
def handbook(data: Path, seed: int, ablation: bool, out: Path | None) -> None:
    """Run the Fraud Detection Handbook's protocol: chapter 3's split and the four prequential folds. Takes minutes."""
    from training.evaluation import handbook as protocol

    with stages() as progress:
        if ablation:
            report: Any = {"ablation": protocol.ablation(data, seed, progress), "folds": protocol.VALIDATION_FOLDS, "seed": seed}
        else:
            report = protocol.run(data, seed, progress)
    if ablation:
        _table("Validation folds, mean", [(row["name"], row, "") for row in report["ablation"]])
    else:
        _side_by_side("Prequential, mean of four folds", report["published"], report["prequential"])
        _side_by_side("Chapter 3, one split", report["published_chapter_3"], report["chapter_3"])
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(json.dumps(report, indent=2) + "\n")
        click.echo(f"report in {out}")


def _side_by_side(title: str, published: dict[str, Any], ours: list[dict[str, Any]]) -> None:
    rows = [(f"published: {name}", values, "") for name, values in published.items()]
    rows += [(row["name"], row, f"{row['share_of_perfect_card_precision']:.0%}") for row in ours]
    _table(title, rows)


def _table(title: str, rows: list[tuple[str, dict[str, Any], str]]) -> None:
    width = max(len(name) for name, _, _ in rows)
    click.echo(f"\n{title:<{width}}  {'  '.join(f'{head:>6}' for head in _HEADS)}  % of perfect CP")
    for name, row, share in rows:
        values = (row["auc"], row["average_precision"], row["card_precision_100"])
        click.echo(f"{name:<{width}}  {'  '.join(f'{value:6.4f}' for value in values)}  {share}".rstrip())
