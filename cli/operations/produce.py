"""``whyflag produce``."""

from pathlib import Path

import click

from cli.progress import stages, stderr


@click.command()
@click.option("--transactions", type=click.Path(path_type=Path), required=True, help="CSV, Parquet or JSON Lines file.")
@click.option("--mapping", default="whyflag", show_default=True, help="Name of a built-in mapping, or a TOML file.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, show_default=True, help="Transactions per second; 0: no limit.")
@click.option("--limit", type=click.IntRange(1), default=None, help="Stop after this many transactions.")
@click.option("--labels", type=click.Path(path_type=Path), default=None, help="Labels to send too, each at its time.")
@click.option("--rejects", type=click.Path(path_type=Path), default=None, help="File for rows that cannot be used.")
def command(
    transactions: Path, mapping: str, rate: float, limit: int | None, labels: Path | None, rejects: Path | None
) -> None:  # fmt: skip
    """Send a file of transactions to Kafka in file order, keyed by card."""
    from collections import deque
    from time import time

    from core.messages import encode
    from core.settings import read_settings
    from core.topics import LABELS, TRANSACTIONS
    from streams.kafka.clients import Sender, check_topics
    from streams.tracing import tracing_of
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile, read_labels
    from training.replay import transactions_of

    settings = read_settings()
    source = TransactionFile(transactions, load_mapping(mapping), settings.privacy, rejects)
    waiting = deque(read_labels(labels, settings.privacy) if labels else ())
    check_topics(settings, (TRANSACTIONS, LABELS) if labels else (TRANSACTIONS,))
    tracing = tracing_of(settings, "produce")
    sender, at_once = Sender(settings, rate), Sender(settings, 0)
    try:
        with stages() as progress:
            progress.stage("producing", limit or 0)
            for transaction in transactions_of(source):
                if limit is not None and sender.sent >= limit:
                    break
                while waiting and waiting[0].label_time <= transaction.event_time:
                    label = waiting.popleft()
                    at_once.send(LABELS, label.card_id.encode(), encode(label))
                trace = ""
                if tracing.chosen():
                    trace = tracing.span("produce", "", time(), {"transaction_id": transaction.transaction_id})
                sender.send(TRANSACTIONS, transaction.card_id.encode(), encode(transaction), trace=trace)
                progress.advance(1)
            if limit is None:
                for label in waiting:
                    at_once.send(LABELS, label.card_id.encode(), encode(label))
    finally:
        sender.close()
        at_once.close()
    stderr.print(
        f"{sender.sent:,} transactions and {at_once.sent:,} labels produced, {source.rejected:,} rows rejected", highlight=False
    )
    if source.rejected:
        where = f"see {rejects}" if rejects else "use --rejects FILE to keep all of them"
        stderr.print(f"first rejected row: {source.first_reject}; {where}", highlight=False)
