"""``whyflag archive``."""

from pathlib import Path

import click

from cli.options import transactions_options
from cli.progress import stages, stderr


@click.command()
@transactions_options
def command(transactions: Path, mapping: str, labels: Path | None) -> None:
    """
    Fill the archive from files, so that explanations know what cards did before the stream began.

    A transaction counts as written at its event time, a label at its label time. Rows older than WHYFLAG_ARCHIVE_DAYS and labels from the
    future are skipped. Importing the same file again under the same name changes nothing.
    """
    from zlib import crc32

    from analyst.archive import Archive, Source
    from core.clock import SystemClock
    from core.settings import read_settings
    from training.mapping import load_mapping
    from training.readers import TransactionFile, messages_of, read_labels

    settings = read_settings()
    archive = Archive(settings.archive_url, SystemClock(), settings.archive_days)
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy)
    now = SystemClock().now_ms()
    known = [one for one in read_labels(labels, settings.privacy) if one.label_time <= now] if labels else []
    # negative, so that no partition of Kafka has the number; each file name has its own
    place, labels_place = (-1 - crc32(str(path).encode()) for path in (transactions.name, labels.name if labels else ""))
    count = 0
    try:
        with stages() as progress:
            progress.stage("past payments", 0)
            for chunk in source.chunks():
                piece = list(messages_of(chunk.table))
                archive.add_transactions([Source(one.event_time, place, count + i) for i, one in enumerate(piece)], piece)
                count += len(piece)
                progress.advance(len(piece))
            progress.stage("past labels", 0)
            archive.add_labels([Source(one.label_time, labels_place, i) for i, one in enumerate(known)], known)
    finally:
        archive.close()
    stderr.print(
        f"{count:,} transactions and {len(known):,} labels read, {source.rejected:,} rows rejected; those within the retention are archived",
        highlight=False,
    )
