"""
A language model looks into one alert with read-only tools, within a budget of steps and tokens.

Every tool answer is evidence in our words, with ids; the report is checked against all of it like any narrative. The whole
conversation is kept, so that a reader can follow how the report came about. The model can look and word, and nothing else.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec
from msgspec import Struct

from core.messages import TYPOLOGIES, Alert, EvidenceItem, Explanation, Finding, Sentence, Verification
from core.money import money
from explain.casebook import case_words
from explain.narrator import Facts, Narrative, parse
from explain.prompting import INVESTIGATION, prompt
from explain.reasons import REASONS, duration
from explain.verification import check

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

STEPS: Final = 8
TOKENS: Final = 40_000
_SENTENCES = 12  # of a report
_SHOWN = 10  # alerts or transactions a tool tells of


class Records(Protocol):
    """What an investigation may read of the queue."""

    def of_card(self, card_id: str, limit: int = 10) -> "list[Any]":
        """A card's alerts, newest first."""

    def of_merchant(self, merchant_id: str, limit: int = 10) -> "list[Any]":
        """A merchant's alerts, newest first."""


class Entry(Struct, frozen=True):
    """A line of the transcript: who said it (``model``, ``tool``, ``us``) and what."""

    who: str
    what: str


class Investigation(Struct, frozen=True):
    """
    What an investigation found: ``report``, the model's sentences that passed the check, all ``evidence`` they rest on, the transcript, what was used, and why
    it ended: ``finished``, ``out of steps``, ``out of tokens``, ``late``, or ``failed: ...``.
    """

    alert_id: str
    model: str
    prompt: str
    ended: str
    report: tuple[Sentence, ...]
    evidence: tuple[EvidenceItem, ...]
    verification: Verification
    transcript: tuple[Entry, ...]
    steps: int
    tokens: int
    seconds: float


class _Toolbox:
    """The tools about one alert. Each answer becomes evidence; identifiers of cards, merchants and devices stay here."""

    def __init__(self, alert: Alert, explanation: Explanation, records: Records, rule: Callable[[str], str | None]) -> None:
        self._alert, self._explanation, self._records, self._rule = alert, explanation, records, rule
        self.found: list[EvidenceItem] = []
        self._answers: dict[str, str] = {}

    def _told(self, name: str, *texts: str) -> str:
        """Make evidence of an answer, once, and give it with its ids."""
        if name not in self._answers:
            items = [
                EvidenceItem(evidence_id=f"I{len(self.found) + number}", kind="investigation", code=name.upper(), text=text)
                for number, text in enumerate(texts, start=1)
            ]
            self.found += items
            self._answers[name] = msgspec.json.encode([{"id": i.evidence_id, "text": i.text} for i in items]).decode()
        return self._answers[name]

    def card_history(self) -> str:
        """The card's last transactions before this one, and its earlier alerts with what they turned out to be."""
        transaction, texts = self._alert.transaction, []
        for past in self._alert.recent[-_SHOWN:][::-1]:
            amount = (
                "an unknown amount" if past.amount is None else money(past.amount, self._alert.currency or transaction.currency)
            )
            ago = duration((transaction.event_time - past.event_time) / 1000)
            place = "online" if past.channel == "online" else "card present" if past.channel else "channel not given"
            where = f", in {past.country}" if past.country else ""
            same = ", at the same merchant" if past.same_merchant else ""
            texts.append(f"{ago} before, the card paid {amount}, {place}{where}{same}.")
        if not texts:
            texts.append("No earlier transaction of this card is known.")
        others = [one for one in self._records.of_card(transaction.card_id, 50) if one.alert.alert_id != self._alert.alert_id]
        texts.append(_counted("This card", others))
        return self._told("card_history", *texts)

    def merchant_history(self) -> str:
        """The alerts at this merchant and what they turned out to be."""
        others = [
            one
            for one in self._records.of_merchant(self._alert.transaction.merchant_id, 200)
            if one.alert.alert_id != self._alert.alert_id
        ]
        return self._told("merchant_history", _counted("This merchant", others))

    def linked_cards(self) -> str:
        """Other cards with alerts at the same merchant, or from the same device."""
        transaction = self._alert.transaction
        others = [
            one
            for one in self._records.of_merchant(transaction.merchant_id, 200)
            if one.alert.transaction.card_id != transaction.card_id
        ]
        cards = Counter(one.alert.transaction.card_id for one in others)
        found = {one.alert.transaction.card_id for one in others if one.finding is Finding.FRAUD}
        texts = [
            f"{len(cards)} other cards had alerts at this merchant; of these, {len(found)} had an alert that was found to be fraud."
        ]
        if transaction.device_id:
            shared = {one.alert.transaction.card_id for one in others if one.alert.transaction.device_id == transaction.device_id}
            texts.append(f"{len(shared)} of these other cards were used from the same device.")
        return self._told("linked_cards", *texts)

    def similar_cases(self) -> str:
        """The most similar closed cases, each with its typology, if it is a known one, and in what it differs from this alert."""
        texts = []
        for case in self._explanation.similar_cases:
            text = case_words(case)
            text += f"; typology {case.typology}" if case.typology in TYPOLOGIES else ""
            text += f"; differences: {'; '.join(case.differences)}" if case.differences else ""
            texts.append(f"{text}.")
        return self._told("similar_cases", *(texts or ["No similar case was closed before this alert."]))

    def rule_definition(self, rule: Annotated[str, "the rule's id, as the facts name it"]) -> str:
        """What a rule that holds for this transaction says, and who owns it."""
        if rule not in self._alert.decision.rule_hits:
            return "No such rule holds for this transaction."
        return self._told(f"rule_{rule}", self._rule(rule) or f"The definition of rule {rule} is not at hand here.")

    def feature_definition(self, evidence_id: Annotated[str, "the id of a contribution, such as E1"]) -> str:
        """What a feature measures, and which way it moved the score."""
        item = next(
            (one for one in self._explanation.evidence if one.evidence_id == evidence_id and one.kind == "contribution"), None
        )
        if item is None:
            return "There is no contribution of that id."
        reason = next((one for one in REASONS.values() if item.code.endswith(f"_{one.code}")), None)
        measured = (
            reason.words.format(
                value="a value", window="a window", subject="the card or merchant", subject_of="the card or merchant"
            )
            if reason
            else ""
        )
        side = "for" if (item.contribution or 0) > 0 else "against"
        return self._told(f"feature_{evidence_id}", f"{item.evidence_id} is of the form: {measured} Here it speaks {side} fraud.")

    def tools(self) -> list[Any]:
        """The tools as LlamaIndex knows them."""
        from llama_index.core.tools import FunctionTool

        own = (
            self.card_history,
            self.merchant_history,
            self.linked_cards,
            self.similar_cases,
            self.rule_definition,
            self.feature_definition,
        )
        return [FunctionTool.from_defaults(_checked(tool)) for tool in own]


def _counted(whose: str, others: list[Any]) -> str:
    findings = Counter(one.finding for one in others)
    return (
        f"{whose} had {len(others)} other alerts: {findings[Finding.FRAUD]} found to be fraud, "
        f"{findings[Finding.LEGITIMATE]} legitimate, {len(others) - findings[Finding.FRAUD] - findings[Finding.LEGITIMATE]} open or escalated."
    )


def _checked(tool: Callable[..., str]) -> Callable[..., str]:
    """A tool that tells a model what was wrong with its arguments, for LlamaIndex passes on whatever it was given."""
    import functools

    @functools.wraps(tool)
    def checked(**arguments: Any) -> str:
        if not all(isinstance(value, str) and len(value) <= 64 for value in arguments.values()):
            return "Arguments must be short texts."
        return tool(**arguments)

    return checked


async def investigate(
    alert: Alert,
    explanation: Explanation,
    records: Records,
    llm: "LLM",
    rule: Callable[[str], str | None] = lambda rule: None,
    steps: int = STEPS,
    tokens: int = TOKENS,
    seconds: float = 120.0,
    told: Callable[[Entry], None] = lambda entry: None,
) -> Investigation:
    """
    Let a model look into an alert. It never raises for what the model or its server does: that is how the investigation ended.

    ``rule`` gives the definition of a rule; ``steps`` are answers of the model, ``tokens`` of prompts and answers together;
    ``told`` hears of each line of the transcript as it comes.
    """
    from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ReActAgent, ToolCall, ToolCallResult
    from workflows.errors import WorkflowRuntimeError, WorkflowTimeoutError

    begin = time.monotonic()
    toolbox = _Toolbox(alert, explanation, records, rule)
    transcript: list[Entry] = []
    used, answered, last, ended = 0, 0, "", "finished"

    def note(who: str, what: str) -> None:
        transcript.append(Entry(who, what))
        told(transcript[-1])

    asked = prompt(INVESTIGATION).filled(Facts(explanation.evidence, explanation.suggestion))
    note("us", asked)
    kind = FunctionAgent if llm.metadata.is_function_calling_model else ReActAgent
    # a limit of n stops the n-th answer even if it is the last word
    agent = kind(
        name="investigator", description="looks into an alert", tools=toolbox.tools(), llm=llm, streaming=False, timeout=seconds
    )
    handler = agent.run(user_msg=asked, max_iterations=steps + 1)
    try:
        async for event in handler.stream_events():
            if isinstance(event, ToolCallResult):
                note("tool", f"{event.tool_name} answered: {event.tool_output.content}")
            elif isinstance(event, ToolCall):
                note("model", f"asks {event.tool_name}({msgspec.json.encode(event.tool_kwargs).decode()})")
            elif isinstance(event, AgentOutput):
                answered += 1
                used += _tokens(event.raw)
                if event.response.content:
                    note("model", event.response.content)
                    last = last if event.tool_calls else event.response.content
                if event.tool_calls and used >= tokens:
                    ended = "out of tokens"
                    await handler.cancel_run()
                    break
        if ended == "finished":
            await handler
    except (WorkflowTimeoutError, TimeoutError):
        ended = "late"
    except WorkflowRuntimeError as error:
        ended = "out of steps" if "iteration" in str(error).lower() else f"failed: {type(error).__name__}"
    except Exception as error:  # whatever the server does is how it ended
        status = getattr(error, "status_code", None)
        ended = f"failed: {f'HTTP {status}' if status else type(error).__name__}"
    if ended != "finished":
        note("us", f"ended: {ended}")
    facts = Facts((*explanation.evidence, *toolbox.found), explanation.suggestion)
    try:
        narrative = parse(last) if last else Narrative(())
    except ValueError as error:
        ended = ended if ended != "finished" else f"failed: {error}"
        narrative = Narrative(())
    checked = check(narrative, facts)
    name = llm.metadata.model_name
    report = [Sentence(claim.text.strip(), claim.evidence_ids, name, claim.part) for claim, fault in checked if fault is None]
    reasons = tuple(f"{claim.part[:40]}: {fault}" for claim, fault in checked if fault is not None)
    return Investigation(
        alert_id=alert.alert_id,
        model=name,
        prompt=INVESTIGATION,
        ended=ended,
        report=tuple(report[:_SENTENCES]),
        evidence=facts.evidence,
        verification=Verification(len(checked), len(reasons), reasons),
        transcript=tuple(transcript),
        steps=answered,
        tokens=used,
        seconds=round(time.monotonic() - begin, 2),
    )


def _tokens(raw: Any) -> int:
    whole = raw.model_dump() if hasattr(raw, "model_dump") else raw
    usage = whole.get("usage") if isinstance(whole, dict) else None
    return sum(usage.get(name) or 0 for name in ("prompt_tokens", "completion_tokens")) if usage else 0


def run(*arguments: Any, **named: Any) -> Investigation:
    """``investigate``, for those who do not wait."""
    return asyncio.run(investigate(*arguments, **named))
