"""The last stage: writes an explanation of each alert to the queue and to a topic, and turns verdicts into cases."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter, time
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import structs
from sqlalchemy.exc import SQLAlchemyError

from analyst.cases import Cases
from analyst.policy import policy_of
from analyst.proposals import ApprovedSteps, Proposals
from analyst.queue import Queue, refusals
from core import metrics
from core.clock import SystemClock
from core.errors import BundleError, InvalidEvent, Refusal
from core.logs import bound
from core.messages import Alert, Explanation, Verdict, alert_id, decode_alert, decode_verdict, encode
from core.privacy.masking import WITHOUT_KEY, Privacy
from core.settings import Settings
from core.topics import ALERTS, EXPLANATIONS, VERDICTS
from streams.kafka.publishing import Outputs, Publisher
from streams.stages.stage import Chunk, Stage, dead_letter
from streams.tracing import NO_TRACING, Tracing, parent_of, tracing_of

if TYPE_CHECKING:
    from analyst.archive import Archive
    from explain.casebook import Casebook
    from explain.explainer import Explainer
    from models.bundles.bundle import Bundle

logger = logging.getLogger(__name__)

_WAITING = 1000  # maximum number of pending narratives; further alerts keep the template's text


class ExplainStage(Stage):
    """Explains alerts. The template's narrative is queued before the alert is acknowledged; a language model's may follow."""

    name = "explain"
    topics = (ALERTS, VERDICTS)

    def __init__(
        self,
        explainer: "Explainer",
        queue: Queue,
        cases: Cases,
        another: Callable[[str], "Explainer | None"] = lambda version: None,
        archive: "Archive | None" = None,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        """``another`` returns the explainer of another bundle, or None if that is not available; ``stop`` closes ``archive``."""
        self._explainers: dict[str, Explainer | None] = {explainer.bundle.version: explainer}
        self._explainer, self._queue, self._cases, self._another = explainer, queue, cases, another
        self._archive, self._tracing = archive, tracing
        self._narrating: set[asyncio.Task[None]] = set()
        self._publisher: Publisher | None = None

    async def start(self, publisher: Publisher) -> None:
        """Keep the publisher for narratives that are finished later."""
        self._publisher = publisher

    async def stop(self) -> None:
        """Cancel pending narratives, so that the template's text stays; save the casebooks' indexes and close the databases."""
        for task in self._narrating:
            task.cancel()
        await asyncio.gather(*self._narrating, return_exceptions=True)
        for explainer in self._explainers.values():
            if explainer is not None:
                await asyncio.to_thread(explainer.casebook.close)
        self._queue.close()
        if self._archive is not None:
            self._archive.close()

    def ping(self) -> None:
        """Return when the queue's database has answered."""
        self._queue.ping()

    async def process(self, chunks: Sequence[Chunk]) -> list[Outputs]:
        """Explain alerts, and learn from verdicts."""
        outputs: list[Outputs] = []
        for topic, record in ((chunk.topic, record) for chunk in chunks for record in chunk.records):
            try:
                with refusals():
                    if topic == ALERTS:
                        outputs.append(await self._explained(_alert(record.value), record))
                        metrics.EXPLANATION_LATENCY.observe(self._queue.clock.now_ms() / 1000 - record.timestamp / 1000)
                    else:
                        await self._learned(_verdict(record.value, WITHOUT_KEY))
            except InvalidEvent as error:
                outputs.append(dead_letter(self.name, record, error))
        return outputs

    async def _explained(self, alert: Alert, record: Any) -> Outputs:
        began, ids = time(), {"alert_id": alert.alert_id, "transaction_id": alert.transaction.transaction_id}
        parent = parent_of(record) if self._tracing.enabled else ""
        with bound(**ids):
            output = await self._explained_and_queued(alert, parent)
        if not parent:
            return output
        return output._replace(traces=[self._tracing.span("explain", parent, began, ids)])

    async def _explained_and_queued(self, alert: Alert, parent: str) -> Outputs:
        begin = perf_counter()
        try:
            explainer, explanation = await asyncio.to_thread(self._in_words, alert)
        except (InvalidEvent, SQLAlchemyError):  # if the casebook's database is unavailable, the alert must not be acknowledged
            raise
        except Exception as error:  # depends on the alert only: a retry would fail the same way
            logger.exception("the alert cannot be explained")
            raise InvalidEvent(f"the alert cannot be explained: {error!r}", Refusal.NOT_EXPLAINABLE) from None
        if narrated := await asyncio.to_thread(self._narrated_before, explainer, explanation):
            return _output(narrated)
        await asyncio.to_thread(self._queue.put, alert, explanation)
        metrics.EXPLAIN_SECONDS.observe(perf_counter() - begin)
        metrics.EXPLANATIONS.labels(explanation.narrator).inc()
        if explainer.has_language_model and len(self._narrating) < _WAITING:
            task = asyncio.create_task(self._narrate(explainer, alert, explanation, parent))
            self._narrating.add(task)
            task.add_done_callback(self._narrating.discard)
        return _output(explanation)

    def _in_words(self, alert: Alert) -> "tuple[Explainer, Explanation]":
        explainer = self._of(alert.decision.bundle) or self._explainer
        return explainer, explainer.explain(alert)

    def _narrated_before(self, explainer: "Explainer", explanation: Explanation) -> Explanation | None:
        """
        Return the earlier explanation of a redelivered alert if the same model and bundle made it, else None.

        Reusing it avoids a second paid call of the model.
        """
        if not explainer.has_language_model:
            return None
        queued = self._queue.get(explanation.alert_id)
        before = queued.explanation if queued else None
        same = before and (before.narrator, before.bundle) == (explainer.narrator, explanation.bundle)
        return before if same else None

    async def _narrate(self, explainer: "Explainer", alert: Alert, explanation: Explanation, parent: str) -> None:
        began, ids = time(), {"alert_id": alert.alert_id, "transaction_id": alert.transaction.transaction_id}
        try:
            narrated = await explainer.narrate(explanation)
            if narrated is None or self._publisher is None:
                return
            await asyncio.to_thread(self._queue.put, alert, narrated)
            output = _output(narrated)
            if parent:
                output = output._replace(traces=[self._tracing.span("narrate", parent, began, ids)])
            await self._publisher.publish([output])
            metrics.EXPLANATIONS.labels("language-model").inc()
        except Exception:  # only the language model's wording is lost
            logger.exception("the narrative could not be saved")

    async def _learned(self, verdict: Verdict) -> None:
        with bound(alert_id=verdict.alert_id, transaction_id=verdict.transaction_id):
            await asyncio.to_thread(self._learn, verdict)

    def _learn(self, verdict: Verdict) -> None:
        """Add a verdict as a case, closed at the verdict's time, to the casebook of every bundle that this worker has loaded."""
        from explain.casebook import case_from

        queued = self._queue.get(verdict.alert_id)
        if queued is None:
            return
        self._of(queued.alert.decision.bundle)
        self._cases.judge(verdict)
        for version, explainer in self._explainers.items():
            if explainer is not None and (case := case_from(queued.alert, verdict, explainer.bundle)):
                self._cases.put(version, [case])

    def _of(self, version: str) -> "Explainer | None":
        """Return the explainer of a bundle version, or None. After a promotion, alerts of the old and the new bundle arrive."""
        if version not in self._explainers:
            self._explainers[version] = self._another(version)
        return self._explainers[version]


def _alert(raw: bytes | None) -> Alert:
    alert: Alert = _decoded(raw, decode_alert)
    if alert.alert_id != alert_id(alert.transaction):
        raise InvalidEvent("the alert's id does not match its transaction")
    return alert


def _verdict(raw: bytes | None, privacy: Privacy) -> Verdict:
    verdict: Verdict = _decoded(raw, decode_verdict)
    return structs.replace(
        verdict,
        note=None if verdict.note is None else privacy.private("note", verdict.note),
        typology=None if verdict.typology is None else privacy.private("typology", verdict.typology),
    )


def _decoded(raw: bytes | None, decode: Any) -> Any:
    try:
        return decode(raw or b"")
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidEvent(str(error)) from None


def _output(explanation: Explanation) -> Outputs:
    return Outputs(EXPLANATIONS, [explanation.alert_id.encode()], [encode(explanation)])


def casebook_of(bundle: "Bundle", cases: Cases, where: str, anew: bool = False) -> "Casebook":
    """
    Return a bundle's casebook, filled from SQL. Its vectors are in ``where``, a folder or a PostgreSQL URL; ``anew`` discards
    those that exist.

    Raises:
        CasebookError: if the PostgreSQL database cannot be used.
    """
    from explain.casebook import Casebook
    from explain.vectors import FaissCases, PostgresCases

    cases.fill(bundle)
    width = 2 * len(bundle.spec.feature_names)
    store: PostgresCases | FaissCases
    if "://" in where:
        store = PostgresCases(where, bundle.version, width)
    else:
        store = FaissCases(bundle.version, width, Path(where) / bundle.version)
        if not anew:
            store.load()
    if anew:
        store.forget()
    casebook = Casebook(bundle, cases, store)
    if store.known > cases.newest(bundle.version) or len(casebook) != cases.count(bundle.version):
        logger.warning("the casebook's index does not match the cases in SQL: it is rebuilt")
        store.forget()
        casebook = Casebook(bundle, cases, store)
    return casebook


def explain_stage(settings: Settings, bundle_dir: Path) -> ExplainStage:
    """
    Return the stage with its dependencies: bundle, queue, archive, language model, and the casebook of past cases and verdicts.

    Raises:
        BundleError: if the bundle cannot be loaded.
        CasebookError: if the casebook's database cannot be used.
        DatabaseError: if the database cannot be opened.
        SettingsError: if the language model's settings or the table of next steps are invalid.
    """
    from analyst.archive import Archive
    from explain.explainer import Explainer
    from explain.facts.next_step import load_next_steps
    from explain.narrators.client import language_model
    from explain.narrators.service import NarratorService
    from models.bundles.bundle import Bundle
    from models.bundles.signing import verifying_keys
    from models.bundles.store import BundleStore, open_bundle

    load_next_steps(settings.next_steps)  # fails now, not at the first alert
    queue, llm = Queue(settings.database, SystemClock(), policy_of(settings)), language_model(settings)
    steps = ApprovedSteps(Proposals(queue.database, queue.clock), settings.next_steps)
    archive = Archive(settings.archive_url, SystemClock(), settings.archive_days)
    keys = verifying_keys(settings)
    cases, narrators = Cases(queue), NarratorService(llm, settings) if llm else None

    def explainer_of(bundle: Bundle) -> Explainer:
        return Explainer(bundle, casebook_of(bundle, cases, settings.casebook), narrators, steps.current, archive)

    def another(version: str) -> Explainer | None:
        if not BundleStore.at(bundle_dir):
            return None
        try:
            return explainer_of(BundleStore(bundle_dir, keys).open(version))
        except BundleError as error:  # an outage raises a different error: the worker stops, restarts and tries again
            logger.error("bundle %s cannot be used, so its alerts are explained without its model: %s", version, error)
            return None

    tracing = tracing_of(settings, "explain")
    return ExplainStage(explainer_of(open_bundle(bundle_dir, keys)), queue, cases, another, archive, tracing)
