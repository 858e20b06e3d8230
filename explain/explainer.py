"""
From an alert to an explanation: facts, similar cases and the narrative.

The template's claims come at once; a language model's claims replace them later if they pass the check.
"""

import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from core.errors import DatabaseError, LanguageModelError
from core.messages import Alert, Explanation, Fact, SimilarCase, Verification
from core.metrics import NARRATIVES, SENTENCES
from explain.casebook import Casebook
from explain.claims import TEMPLATE, NarrativeSubject, check, completed, template_claims
from explain.facts.alert import alert_facts, balance
from explain.facts.attribution import attribute
from explain.facts.cases import case_facts
from explain.facts.history import History, card_history
from explain.facts.kinds import code_of, entity_of
from explain.facts.next_step import NextSteps, load_next_steps, next_step, step_fact
from explain.facts.past import no_archive, past_facts
from explain.facts.themes import Reasons, reasons_by_theme
from explain.typology import Typologies
from models.bundles.bundle import Bundle

if TYPE_CHECKING:
    from explain.narrators.service import NarratorService

logger = logging.getLogger(__name__)

_CODES = 3  # maximum number of reason codes of an explanation
_REST_SECONDS = 30.0  # pause after a failure of the archive before the next query


class Explainer:
    """Explainer for the alerts of one bundle."""

    def __init__(
        self,
        bundle: Bundle,
        casebook: Casebook,
        narrators: "NarratorService | None" = None,
        steps: Callable[[], NextSteps] = load_next_steps,
        history: History | None = None,
    ) -> None:
        """
        Create an explainer.

        ``narrators`` rewrite the template's narrative, ``steps`` returns the table of next steps (by default the built-in one), and
        ``history`` is the store of past payments.
        """
        self.bundle, self.casebook, self.narrators = bundle, casebook, narrators
        self._steps, self._history = steps, history
        self._typologies = Typologies(casebook)
        self._resting_until = 0.0  # monotonic

    @property
    def has_language_model(self) -> bool:
        """Whether a language model rewrites the template's narrative."""
        return self.narrators is not None

    @property
    def narrator(self) -> str:
        """The name of the narrator that writes the final narrative."""
        return self.narrators.name if self.narrators else TEMPLATE

    def explain(self, alert: Alert) -> Explanation:
        """
        Return a complete explanation with the template's claims, without waiting for a language model.

        Raises:
            InvalidEvent: if the alert lacks features of the bundle that it names.
        """
        reasons, start, typology = Reasons(), None, None
        similar: list[SimilarCase] | None = None
        if alert.decision.bundle == self.bundle.version:
            attribution = attribute(alert, self.bundle)
            reasons, start = reasons_by_theme(alert, self.bundle, attribution.shap, attribution.bias), attribution.bias
            similar = self.casebook.similar(attribution.x, attribution.shap, alert.transaction.event_time, alert.alert_id)
            typology = self._typologies.likely(self.casebook.vector(attribution.x, attribution.shap), similar)
        facts = (
            *alert_facts(alert, self.bundle),
            *reasons.facts,
            *([balance([reason.contribution for reason in reasons.themes])] if reasons.themes else []),
            *self._past(alert),
            *case_facts(similar, alert.decision.probability, typology),
            step_fact(next_step(self._steps(), alert, reasons.themes, typology)),
        )
        claims = template_claims(NarrativeSubject(facts, reasons.themes))
        return Explanation(
            alert_id=alert.alert_id,
            transaction_id=alert.transaction.transaction_id,
            facts=facts,
            reasons=self._codes(reasons.facts) or alert.decision.reason_codes,
            similar_cases=tuple(similar or ()),
            narrative=claims,
            verification=Verification(len(claims), 0),
            bundle=self.bundle.version,
            narrator=TEMPLATE,
            prompt=TEMPLATE,
            index=self.casebook.version,
            themes=reasons.themes,
            start=start,
            typology=typology,
        )

    def _past(self, alert: Alert) -> tuple[Fact, ...]:
        if self._history is None or time.monotonic() < self._resting_until:
            return no_archive()
        try:
            return past_facts(alert.transaction, card_history(alert.transaction, self._history))
        except DatabaseError as error:  # a fact in the explanation says that the archive is missing
            logger.warning("the archive could not be read for %s: %s", alert.alert_id, error)
            self._resting_until = time.monotonic() + _REST_SECONDS
            return no_archive()

    def _codes(self, facts: tuple[Fact, ...]) -> tuple[str, ...]:
        """Return the reason codes of the values with the largest contributions to fraud."""
        values = [fact for fact in facts if fact.feature and (fact.contribution or 0) > 0]
        values.sort(key=lambda fact: -(fact.contribution or 0))
        return tuple(dict.fromkeys(code_of(*entity_of(self.bundle.spec, fact.feature)) for fact in values))[:_CODES]

    async def narrate(self, explanation: Explanation) -> Explanation | None:
        """
        Return the explanation with the language model's accepted claims, completed by the template's claims.

        None if there is no language model, the model fails, or no claim is accepted.
        """
        if self.narrators is None:
            return None
        subject, name = NarrativeSubject(explanation.facts, explanation.themes), self.narrators.name
        try:
            proposed = await self.narrators.narrative(subject)
        except LanguageModelError as error:  # after any failure of the server, the template's narrative stays
            logger.warning("the language model gave no narrative for %s: %s", explanation.alert_id, error)
            NARRATIVES.labels("failed").inc()
            return None
        checked = check(proposed, subject, name)
        accepted = [one.claim for one in checked if one.claim]
        faults = tuple(str(one.fault) for one in checked if one.fault)
        SENTENCES.labels("accepted").inc(len(accepted))
        SENTENCES.labels("replaced").inc(len(faults))
        NARRATIVES.labels("accepted" if accepted else "refused").inc()
        if not accepted:
            return None
        return msgspec.structs.replace(
            explanation,
            narrative=completed(accepted, subject),
            verification=Verification(len(checked), len(faults), faults),
            narrator=name,
            prompt=self.narrators.prompt.version,
        )
