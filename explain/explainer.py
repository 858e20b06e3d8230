"""From an alert to an explanation: evidence, similar cases, the template's words at once, a language model's when they pass."""

import logging
from typing import TYPE_CHECKING

import msgspec

from core.messages import Alert, Explanation
from core.metrics import SENTENCES
from explain.casebook import Casebook, case_items
from explain.evidence import gather
from explain.facts.next_step import NextSteps, likely_typology, load_next_steps, next_step
from explain.facts.themes import reasons_by_theme
from explain.narrator import TEMPLATE, Facts, Narrative, template_claims
from explain.reasons import CATALOGUE
from explain.verification import check, verified
from models.bundle import Bundle

if TYPE_CHECKING:
    from explain.llm import Narrators, TimeLeft

logger = logging.getLogger(__name__)


class Explainer:
    """Explains the alerts of one bundle."""

    def __init__(
        self, bundle: Bundle, casebook: Casebook, narrators: "Narrators | None" = None, steps: NextSteps | None = None
    ) -> None:
        """``narrators`` word the narrative after the template has; ``steps`` are the next steps, by default the included ones."""
        self.bundle, self.casebook, self.narrators = bundle, casebook, narrators
        self._steps = steps or load_next_steps()

    @property
    def has_language_model(self) -> bool:
        """Whether there is more to wait for than the template's words."""
        return self.narrators is not None

    @property
    def narrator(self) -> str:
        """Who words the narrative in the end."""
        return self.narrators.name if self.narrators else TEMPLATE

    def explain(self, alert: Alert) -> Explanation:
        """The explanation in the template's words: complete, verified, and at once."""
        evidence = gather(alert, self.bundle)
        scored = alert.decision.bundle == self.bundle.version
        similar = self.casebook.similar(evidence.x, evidence.shap, alert.transaction.event_time, alert.alert_id) if scored else []
        themes = reasons_by_theme(alert, self.bundle, evidence.shap, evidence.bias) if scored else ()
        typology = likely_typology(similar)
        step = next_step(self._steps, alert, themes, typology)
        facts = Facts((*evidence.items, *case_items(similar)), step)
        words, checked = verified(template_claims(facts), facts, TEMPLATE, TEMPLATE)
        strongest = [item for item in evidence.items if item.kind == "contribution" and (item.contribution or 0) > 0]
        return Explanation(
            alert_id=alert.alert_id,
            transaction_id=alert.transaction.transaction_id,
            evidence=facts.evidence,
            reasons=tuple(dict.fromkeys(item.code for item in strongest))[:3] or alert.decision.reason_codes,
            similar_cases=tuple(similar),
            narrative=words,
            verification=checked,
            suggestion=facts.suggestion,
            bundle=self.bundle.version,
            narrator=TEMPLATE,
            prompt=f"{TEMPLATE}/{CATALOGUE}",
            index=self.casebook.version,
            themes=themes,
            typology=typology,
        )

    async def narrate(self, explanation: Explanation) -> Explanation | None:
        """The same explanation in the language model's words, as far as they pass; None if it failed or nothing passed."""
        from explain.llm import LanguageModelError

        if self.narrators is None:
            return None
        facts, name = Facts(explanation.evidence, explanation.suggestion), self.narrators.name
        try:
            left = self.narrators.time_left()
            narrative = await self.narrators.narrative(facts, left)
        except LanguageModelError as error:  # whatever the server does, the template's words stand
            logger.warning("the language model gave no narrative for %s: %s", explanation.alert_id, error)
            SENTENCES.labels("failed").inc()
            return None
        narrative = await self._repaired(narrative, facts, left)
        words, checked = verified(narrative, facts, name, TEMPLATE)
        kept = sum(sentence.written_by == name for sentence in words)
        SENTENCES.labels("accepted").inc(kept)
        SENTENCES.labels("replaced").inc(checked.replaced)
        if not kept:
            return None
        return msgspec.structs.replace(
            explanation,
            narrative=words,
            verification=checked,
            narrator=name,
            prompt=f"{self.narrators.prompt.version}/{CATALOGUE}",
        )

    async def _repaired(self, narrative: Narrative, facts: Facts, left: "TimeLeft") -> Narrative:
        """The narrative with refused sentences as the model words them when it is told why, if that helps."""
        from explain.llm import LanguageModelError

        assert self.narrators is not None
        checked = check(narrative, facts)
        refused = [(claim, found) for claim, found in checked if found]
        if not refused:
            return narrative
        try:
            again = await self.narrators.repair(facts, refused, left)
        except LanguageModelError as error:
            logger.info("no repair: %s", error)
            return narrative
        better = [claim for claim, found in check(again, facts) if not found]
        if better:
            SENTENCES.labels("repaired").inc(len(better))
        good = [claim for claim, found in checked if not found]
        # a refused sentence stays only where no other took its place, so that the trail tells of it
        parts = {claim.part for claim in better}
        kept = [claim for claim, found in checked if found and claim.part not in parts]
        return Narrative((*good, *better, *kept))
