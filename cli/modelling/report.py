"""``whyflag report``."""

from pathlib import Path

import click

from cli.options import transactions_options
from cli.progress import rejects_shown, stages


@click.command()
@click.option("--bundle", "folder", type=click.Path(path_type=Path, file_okay=False), required=True)
@transactions_options()
@click.option("--truth", type=click.Path(path_type=Path, dir_okay=False), help="Parquet file with transaction_id and typology.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="HTML file, such as report.html.")
def command(folder: Path, transactions: Path, mapping: str, labels: Path | None, truth: Path | None, out: Path) -> None:
    """Write an HTML report with charts of a bundle's performance on transactions after its calibration period."""
    from core.errors import InputError
    from core.settings import read_settings
    from models.bundles.bundle import check_key, load_bundle
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.evaluation.measures import score_file

    try:
        from training.evaluation.report import read_typology, report
    except ImportError:
        raise InputError("`whyflag report` needs the training extra: run pip install 'whyflag[training]'") from None

    settings, bundle, typology = read_settings(), load_bundle(folder), read_typology(truth)
    check_key(bundle, settings.privacy.fingerprint)
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy)
    with rejects_shown(source), stages() as progress:
        page = report(bundle, score_file(source, labels, bundle, settings.privacy, progress), typology, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(page)
    click.echo(f"report in {out}")
