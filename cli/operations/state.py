"""``whyflag state``."""

from pathlib import Path

import click

from cli.operations.worker import past_of
from cli.progress import stages, stderr


@click.group()
def command() -> None:
    """Rebuild the state that workers keep in Kafka."""


@command.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Model bundle. [default: WHYFLAG_BUNDLE]")
@click.option("--history", type=click.Path(path_type=Path), default=None, help="Past transactions that Kafka no longer holds.")
@click.option("--mapping", default="whyflag", show_default=True, help="Mapping of the history file.")
@click.option("--labels", type=click.Path(path_type=Path), multiple=True, help="Labels of the history file; repeatable.")
@click.option("--partition", "partitions", type=click.IntRange(0), multiple=True, help="Rebuild only this partition; repeatable.")
@click.option(
    "--token-keys",
    is_flag=True,
    help="Kafka's records have the tokens of card numbers as keys, as `whyflag produce` writes them, not the numbers.",
)
def rebuild(
    bundle: Path | None, history: Path | None, mapping: str, labels: tuple[Path, ...], partitions: tuple[int, ...],
    token_keys: bool,
) -> None:  # fmt: skip
    """
    Recompute the state and write it to the checkpoint logs. No transaction is decided again.

    Use this for a new feature spec, a damaged log, or a first start with a history. Stop all workers first; to
    rebuild one partition, stop only the worker that owns it.
    """
    import asyncio

    from core.settings import read_settings
    from models.bundles.bundle import check_key
    from models.bundles.signing import verifying_keys
    from models.bundles.store import open_bundle
    from models.scorer import Decider
    from streams.history import key_hash
    from streams.rebuild import rebuild as write
    from streams.stages.decider_sources import SingleDecider
    from streams.stages.profile import ProfileStage
    from streams.stages.score import ScoreStage
    from training.data.mapping import load_mapping
    from training.data.readers import TransactionFile, read_labels

    settings = read_settings()
    loaded = open_bundle(bundle or settings.bundle_dir, verifying_keys(settings))
    key = settings.privacy
    check_key(loaded, key.fingerprint)
    profile = ProfileStage(loaded.spec, key, ceiling=settings.state_keys)
    score = ScoreStage(loaded.spec, SingleDecider(Decider(loaded)), ceiling=settings.state_keys)
    hashed = None if token_keys else key_hash
    past = past_of(TransactionFile(history, load_mapping(mapping), key, key_hash=hashed), loaded.spec) if history else ()
    known = sorted((label for file in labels for label in read_labels(file, key)), key=lambda label: label.label_time)
    counted = 0
    with stages() as progress:

        def advance(what: str, records: int) -> None:
            nonlocal counted
            counted += records
            progress.advance(records)

        progress.stage("rebuilding")
        asyncio.run(write(profile, score, settings, past, known, advance, partitions))
    keys = {stage.name: sum(state.keys for state in stage.states.values()) for stage in (profile, score)}
    stderr.print(f"{counted:,} records read; {keys['profile']:,} cards and {keys['score']:,} merchants written", highlight=False)
