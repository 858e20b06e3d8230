"""``whyflag retrain``: train a challenger on the transactions and labels known so far."""

import tempfile
from pathlib import Path

import click

from cli.identity import audited_change
from cli.modelling.bundles import pass_gates
from cli.options import delay_of, transactions_options
from cli.progress import stages, stderr


@click.command()
@click.option(
    "--store", type=click.Path(path_type=Path, file_okay=False), default="bundles", show_default=True, help="Folder of the store."
)
@transactions_options()
@click.option("--kafka-labels", is_flag=True, help="Also use all labels in the Kafka topic.")
@click.option("--seed", type=click.IntRange(0), default=7, show_default=True)
@click.option("--promote", is_flag=True, help="Promote the challenger if it passes all gates.")
def command(
    store: Path, transactions: Path, mapping: str, labels: Path | None, kafka_labels: bool, seed: int, promote: bool
) -> None:  # fmt: skip
    """
    Train a challenger with the champion's features, recipe and budget on new labels, and let it score in shadow mode.

    With --promote, the challenger becomes champion if it passes all gates. Exits with status 3 if it fails a gate, and with
    status 0 if it passes or if training reproduced the champion.
    """
    import msgspec

    from core.errors import InputError
    from core.settings import read_settings
    from models.bundles.signing import signing_key
    from models.bundles.store import BundleStore
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile
    from training.train import Recipe, train

    settings, held = read_settings(), BundleStore(store)
    if held.champion is None:
        raise InputError(f"the store in {store} has no champion: run `whyflag train`, `bundles add` and `bundles promote`")
    champion = held.open(held.champion.bundle)
    recipe = msgspec.convert(champion.metrics.recipe, Recipe)
    with tempfile.TemporaryDirectory() as folder, stages() as progress:
        if kafka_labels:
            labels = _with_topic(labels, Path(folder))
        train(
            TransactionFile(transactions, load_mapping(mapping), settings.privacy),
            champion.spec,
            labels=labels,
            alerts_per_day=champion.policy.alerts_per_day,
            label_delay_ms=delay_of(f"{round(champion.metrics.label_delay_days * 24)}h"),
            out=Path(folder) / "bundle",
            seed=seed,
            privacy=settings.privacy,
            progress=progress,
            recipe=recipe,
        )
        version = held.add(Path(folder) / "bundle")
        if version == champion.version:
            click.echo(f"nothing new: training reproduced the champion {version}")
            return
        with audited_change() as audited:
            held.challenge(version, signing_key(settings))
            audited.record("challenger", version, "retrained")
        click.echo(f"challenger {version}")
        passed = pass_gates(held, version, transactions, mapping, labels)
    if not passed:
        raise click.exceptions.Exit(3)
    if promote:
        why = "retrained, passed the gates"
        with audited_change() as audited:
            decider = held.promote(version, held.champion.rules, audited.name, why, signing_key(settings)).decider
            audited.record("promoted", decider, why)
        click.echo(f"champion {decider}")


def _with_topic(labels: Path | None, folder: Path) -> Path:
    """Write the labels of a file and those in Kafka to one file; return its path."""
    from core.decoding import decode_label
    from core.errors import InvalidEvent
    from core.messages import encode
    from core.settings import read_settings
    from core.topics import LABELS
    from streams.kafka.clients import Observer
    from training.data.readers import read_labels

    settings = read_settings()
    path, unusable = folder / "labels.jsonl", 0
    observer = Observer(settings, [LABELS])
    with path.open("wb") as file:
        for label in read_labels(labels, settings.privacy) if labels else ():
            file.write(encode(label) + b"\n")
        for record in observer.all():
            try:
                file.write(encode(decode_label(record.value, settings.privacy)) + b"\n")
            except InvalidEvent:
                unusable += 1  # the workers have already dead-lettered these
    observer.close()
    if unusable:
        stderr.print(f"{unusable:,} records in the topic are not valid labels and were skipped", highlight=False)
    return path
