"""``whyflag worker``."""

import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from core.privacy.masking import Privacy

if TYPE_CHECKING:
    from models.features.spec import FeatureSpec
    from models.rules import RuleSet
    from streams.history import HistoryChunk
    from streams.kafka.publishing import Publisher
    from streams.stages.profile import ProfileStage
    from streams.stages.score import ScoreStage
    from training.data.readers import TransactionFile

logger = logging.getLogger("whyflag")

_ARCHIVE_CHUNK, _EXPLAIN_CHUNK = 5_000, 50  # records


@click.group()
def command() -> None:
    """Run a worker: score, explain or archive."""


@command.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Model bundle. [default: WHYFLAG_BUNDLE]")
@click.option(
    "--rules", type=click.Path(path_type=Path, dir_okay=False), default=None, help="TOML file of rules and lists to apply."
)
@click.option(
    "--history",
    type=click.Path(path_type=Path),
    default=None,
    help="Past transactions for the initial state, placed as `whyflag produce` does.",
)
@click.option("--mapping", default="whyflag", show_default=True, help="Mapping of the history file.")
@click.option("--labels", type=click.Path(path_type=Path), default=None, help="Labels of the history file.")
def score(bundle: Path | None, rules: Path | None, history: Path | None, mapping: str, labels: Path | None) -> None:
    """Profile and score transactions; write decisions, alerts and dead letters."""
    from core.errors import SettingsError
    from core.logs import set_up_logs
    from core.metrics import Program
    from core.settings import read_settings
    from models.bundles.bundle import check_key, load_bundle
    from models.bundles.signing import verifying_keys
    from models.bundles.store import BundleStore
    from models.scorer import Decider
    from streams.health import Health
    from streams.kafka.acls import SCORE_GROUP
    from streams.stages.decider_sources import DeciderSource, SingleDecider, StoreDeciderSource
    from streams.stages.profile import ProfileStage
    from streams.stages.score import ScoreStage
    from streams.tracing import tracing_of
    from streams.worker import build_app, run

    settings = read_settings()
    set_up_logs(Program.SCORE, settings)
    place, keys = bundle or settings.bundle_dir, verifying_keys(settings)
    fingerprint = settings.privacy.fingerprint
    deciders: DeciderSource
    if BundleStore.at(place):
        if rules is not None:
            raise SettingsError("--rules does not work with a store: use `whyflag bundles promote --rules FILE`")
        deciders = StoreDeciderSource(BundleStore(place, keys), fingerprint)
        spec = deciders.spec
    else:
        loaded = load_bundle(place, keys=keys)
        check_key(loaded, fingerprint)
        spec = loaded.spec
        deciders = SingleDecider(Decider(loaded, _rules(rules, spec)))
    if settings.checkpoints and history is not None:
        raise SettingsError(
            "--history is only for in-memory state: with checkpoints, run `whyflag state rebuild --history` instead"
        )
    if not settings.checkpoints:
        logger.warning(
            "state is held in memory only: after a restart, the worker knows no cards or merchants%s",
            "" if history is None else f", except those in {history}",
        )
    tracing = tracing_of(settings, "score")
    profile = ProfileStage(spec, settings.privacy, ceiling=settings.state_keys, tracing=tracing)
    scored = ScoreStage(spec, deciders, ceiling=settings.state_keys, tracing=tracing)
    before = None
    if history is not None:
        from training.data.mapping import load_mapping
        from training.data.readers import TransactionFile

        source = TransactionFile(history, load_mapping(mapping), settings.privacy)
        before = _learner(source, labels, profile, scored, settings.privacy)
    logger.info("scoring with bundle %s, reading from Kafka at %s", deciders.newest().version, settings.kafka_bootstrap)
    run(
        build_app(
            SCORE_GROUP,
            settings,
            [profile, scored],
            Health.of(Program.SCORE, settings),
            before,
        )
    )


def _rules(path: Path | None, spec: "FeatureSpec") -> "RuleSet | None":
    if path is None:
        return None
    from models.rules import load_rules  # imported here, so that Polars is loaded only if there are rules

    return load_rules(path, spec.feature_names)


def past_of(source: "TransactionFile", spec: "FeatureSpec") -> "Iterator[HistoryChunk]":
    """Yield the past transactions of a file in chunks."""
    from streams.history import HistoryChunk
    from training.data.dataset import columns_of

    for chunk in source.chunks():
        cards, merchants = (chunk.table[name].combine_chunks() for name in ("card_id", "merchant_id"))
        yield HistoryChunk(cards, merchants, columns_of(chunk.table, spec), chunk.key_hashes)


def _learner(
    source: "TransactionFile", labels: Path | None, profile: "ProfileStage", scored: "ScoreStage", privacy: Privacy
) -> Callable[["Publisher"], Awaitable[None]]:
    from streams.history import load_history
    from training.data.readers import read_labels

    async def before(publisher: "Publisher") -> None:
        known = read_labels(labels, privacy) if labels else []
        count = await load_history(past_of(source, profile.spec), known, profile, scored, publisher)
        logger.info("built the initial state from %s: %d transactions, %d labels", source.path, count, len(known))

    return before


@command.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=None, help="Model bundle. [default: WHYFLAG_BUNDLE]")
def explain(bundle: Path | None) -> None:
    """Explain alerts with evidence, similar cases and a narrative; write explanations to the queue and to Kafka."""
    from msgspec import structs

    from core.logs import set_up_logs
    from core.metrics import Program
    from core.settings import read_settings
    from streams.health import Health
    from streams.kafka.acls import EXPLAIN_GROUP
    from streams.stages.explain import explain_stage
    from streams.worker import build_app, run

    settings = read_settings()
    set_up_logs(Program.EXPLAIN, settings)
    # a signal to stop waits for the chunk: 50 alerts take seconds even on a busy machine, and others are not acknowledged yet
    settings = structs.replace(settings, max_poll_records=min(settings.max_poll_records, _EXPLAIN_CHUNK))
    stage = explain_stage(settings, bundle or settings.bundle_dir)
    logger.info("explaining alerts from Kafka at %s", settings.kafka_bootstrap)
    health = Health.of(Program.EXPLAIN, settings)
    run(build_app(EXPLAIN_GROUP, settings, [stage], health, checks={"the database": stage.ping}))


@command.command()
def archive() -> None:
    """Copy transactions, decisions and labels into SQL, for looking up the history of a card, merchant or device."""
    from msgspec import structs

    from analyst.archive import Archive
    from core.clock import MS_PER_DAY, SystemClock
    from core.logs import set_up_logs
    from core.metrics import Program
    from core.settings import read_settings
    from streams.health import Health
    from streams.kafka.acls import ARCHIVE_GROUP
    from streams.stages.archive import ArchiveStage
    from streams.worker import build_app, run

    settings = read_settings()
    set_up_logs(Program.ARCHIVE, settings)
    # a chunk is one database transaction: small chunks would cost a disk write each
    settings = structs.replace(settings, max_poll_records=max(settings.max_poll_records, _ARCHIVE_CHUNK))
    clock = SystemClock()
    store = Archive(settings.archive_url, clock, settings.archive_days)
    store.migrate()
    stage = ArchiveStage(store, settings.privacy, clock, int(settings.label_delay_days * MS_PER_DAY))
    logger.info("archiving from Kafka at %s", settings.kafka_bootstrap)
    health = Health.of(Program.ARCHIVE, settings)
    run(build_app(ARCHIVE_GROUP, settings, [stage], health, checks={"the database": stage.ping}))
