"""From an alert to an explanation: evidence, similar cases, the template's words at once, a language model's when they pass."""

import asyncio
import logging
from typing import TYPE_CHECKING

import msgspec

from core.messages import Alert, Explanation
from core.metrics import SENTENCES
from explain.casebook import Casebook, outcome_mix
from explain.evidence import gather, suggestion
from explain.narrator import PROMPT, TEMPLATE, Facts, TemplateNarrator, parse, prompt_for
from explain.reasons import CATALOGUE
from explain.verification import verified
from models.bundle import Bundle

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)


class Explainer:
    """Explains the alerts of one bundle."""

    def __init__(self, bundle: Bundle, casebook: Casebook, llm: "LLM | None", timeout: float) -> None:
        """``llm`` words the narrative after the template has; ``timeout`` is what it may take, seconds."""
        self.bundle, self.casebook = bundle, casebook
        self._llm, self._timeout = llm, timeout
        self._template = TemplateNarrator()

    @property
    def has_language_model(self) -> bool:
        """Whether there is more to wait for than the template's words."""
        return self._llm is not None

    def explain(self, alert: Alert) -> Explanation:
        """The explanation in the template's words: complete, verified, and at once."""
        evidence = gather(alert, self.bundle)
        scored = alert.decision.bundle == self.bundle.version
        similar = self.casebook.similar(evidence.x, evidence.shap, alert.transaction.event_time, alert.alert_id) if scored else []
        facts = Facts((*evidence.items, outcome_mix(similar)), suggestion(alert, evidence))
        narrative = parse(self._template.complete(prompt_for(facts)).text)
        words, checked = verified(narrative, facts, TEMPLATE, TEMPLATE)
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
            prompt=f"{PROMPT}/{CATALOGUE}",
            index=self.casebook.version,
        )

    async def narrate(self, explanation: Explanation) -> Explanation | None:
        """The same explanation in the language model's words, as far as they pass; None if it failed or nothing passed."""
        if self._llm is None:
            return None
        facts = Facts(explanation.evidence, explanation.suggestion)
        name = self._llm.metadata.model_name
        try:
            answer = await asyncio.wait_for(self._llm.acomplete(prompt_for(facts)), self._timeout)
            narrative = parse(answer.text)
        except Exception as error:  # whatever the server does, the template's words stand
            logger.warning("the language model gave no narrative for %s: %s", explanation.alert_id, type(error).__name__)
            SENTENCES.labels("failed").inc()
            return None
        words, checked = verified(narrative, facts, name, TEMPLATE)
        kept = sum(sentence.written_by == name for sentence in words)
        SENTENCES.labels("accepted").inc(kept)
        SENTENCES.labels("replaced").inc(checked.replaced)
        if not kept:
            return None
        return msgspec.structs.replace(explanation, narrative=words, verification=checked, narrator=name)
