"""``whyflag simulate``."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.progress import stages, stderr
from core.errors import InputError


def write_table(table: Any, path: Path) -> None:
    """Write a table in the format given by the path's suffix: .parquet, .csv or .jsonl."""
    import pyarrow.csv
    import pyarrow.parquet

    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".csv":
        pyarrow.csv.write_csv(table, path)
    else:
        import msgspec

        with path.open("wb") as file:
            for batch in table.to_batches(max_chunksize=65_536):
                for row in batch.to_pylist():
                    file.write(msgspec.json.encode({k: v for k, v in row.items() if v is not None}) + b"\n")


@click.command()
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder to write to.")
@click.option("--transactions", type=click.IntRange(100, 50_000_000), default=200_000, show_default=True)
@click.option("--days", type=click.IntRange(2, 3650), default=60, show_default=True)
@click.option("--begin", type=click.DateTime(["%Y-%m-%d"]), default="2025-01-01", show_default=True, help="First day, UTC.")
@click.option("--fraud-share", type=click.FloatRange(0, 0.2), default=0.006, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True, help="The same seed gives the same files.")
@click.option("--drift", is_flag=True, help="Let amounts, online share and typologies change over time.")
@click.option("--format", "form", type=click.Choice(["parquet", "csv", "jsonl"]), default="parquet", show_default=True)
def command(
    out: Path, transactions: int, days: int, begin: datetime, fraud_share: float, seed: int, drift: bool, form: str
) -> None:
    """
    Write simulated transactions, labels and the ground truth.

    transactions.* holds what a model may see, labels.* what was reported and when, and truth.* the true typology of each
    transaction, for evaluation only.
    """
    from training.simulator import SimulationSpec, simulate

    spec = SimulationSpec(
        transactions=transactions,
        days=days,
        begin=int(begin.replace(tzinfo=UTC).timestamp() * 1000),
        fraud_share=fraud_share,
        seed=seed,
        drift=drift,
    )
    with stages() as progress:
        made = simulate(spec, progress.stage)
        progress.stage("writing")
        try:
            out.mkdir(parents=True, exist_ok=True)
        except FileExistsError:
            raise InputError(f"{out} is not a folder: choose another --out") from None
        for name in ("transactions", "labels", "truth"):
            write_table(getattr(made, name), out / f"{name}.{form}")
    stderr.print(f"{made.transactions.num_rows:,} transactions and {made.labels.num_rows:,} labels in {out}", highlight=False)
