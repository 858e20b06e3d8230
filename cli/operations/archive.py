"""``whyflag archive``."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cli.options import transactions_options
from cli.progress import stages, stderr

if TYPE_CHECKING:
    from analyst.archive import Source
    from core.messages import Label, Transaction

_NO_PARTITION = -1


@click.command()
@transactions_options()
def command(transactions: Path, mapping: str, labels: Path | None) -> None:
    """
    Load past transactions and labels into the archive, so that explanations can use data from before the stream began.

    The archive stores a transaction's event time, or a label's label time, as the time of writing. Rows older than
    WHYFLAG_ARCHIVE_DAYS, labels from the future, and rows that are already archived are skipped.
    """
    from analyst.archive import Archive
    from core.clock import SystemClock
    from core.settings import read_settings
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile, messages_of, read_labels

    settings = read_settings()
    clock = SystemClock()
    archive = Archive(settings.archive_url, clock, settings.archive_days)
    archive.migrate()
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy)
    known = [one for one in read_labels(labels, settings.privacy) if one.label_time <= clock.now_ms()] if labels else []
    count = 0
    try:
        with stages() as progress:
            progress.stage("past payments", 0)
            for chunk in source.chunks():
                piece = list(messages_of(chunk.table))
                archive.add_transactions([_source(one.event_time, one) for one in piece], piece)
                count += len(piece)
                progress.advance(len(piece))
            progress.stage("past labels", 0)
            archive.add_labels([_source(one.label_time, one) for one in known], known)
    finally:
        archive.close()
    stderr.print(
        f"{count:,} transactions and {len(known):,} labels read, {source.rejected:,} rows rejected; "
        "transactions and labels within the retention are archived",
        highlight=False,
    )


def _source(written_at: int, message: "Transaction | Label") -> "Source":
    """Return a key for a row that is not from Kafka: a hash of its content as offset, in a partition that Kafka never uses."""
    from analyst.archive import Source
    from core.messages import encode

    digest = hashlib.blake2b(encode(message), digest_size=8).digest()
    return Source(written_at, _NO_PARTITION, int.from_bytes(digest) >> 1)
