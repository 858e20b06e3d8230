"""
Investigation of one alert by a language model with read-only tools, within a budget of steps and tokens.

Every tool returns facts. The report consists of claims about these facts and is checked like any narrative. The whole
conversation is kept, so that a reader can trace how the report was made. The model can only call the tools and arrange facts.
"""

import asyncio
import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final, Protocol

import msgspec
from msgspec import Struct

from core.errors import DatabaseError
from core.messages import Alert, Claim, Explanation, Fact, Finding, Side, Subject, Verification
from core.metrics import INVESTIGATION_SECONDS, INVESTIGATION_TOKENS, INVESTIGATIONS
from explain.claims import NarrativeSubject, check, parse
from explain.facts.history import History, card_history
from explain.facts.past import no_archive, past_facts
from explain.facts.values import code, count, country, money, seconds, text
from explain.narrators.prompting import INVESTIGATION, QUESTION, facts_for_model, prompt

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

STEPS: Final = 8
TOKENS: Final = 40_000
_SENTENCES = 12  # maximum number of sentences of a report
_SHOWN = 10  # maximum number of payments that a tool returns
_ALERTS = 200  # maximum number of alerts of a card or merchant that are counted


class Records(Protocol):
    """The part of the queue that an investigation may read."""

    def of_card(self, card_id: str, limit: int = 10) -> "list[Any]":
        """Return a card's alerts, newest first."""

    def of_merchant(self, merchant_id: str, limit: int = 10) -> "list[Any]":
        """Return a merchant's alerts, newest first."""


class Entry(Struct, frozen=True):
    """An entry of the transcript: ``who`` spoke (``model``, ``tool`` or ``us``) and ``what`` was said."""

    who: str
    what: str


class Investigation(Struct, frozen=True):
    """
    The result of an investigation.

    ``report`` holds the model's claims that passed the check. ``facts`` are the facts that the report mentions and all facts that
    the tools found. ``steps``, ``tokens`` and ``seconds`` are the resources used. ``ended`` says why the investigation ended:
    ``finished``, ``out of steps``, ``out of tokens``, ``late``, or ``failed: ...``.
    """

    alert_id: str
    model: str
    prompt: str
    ended: str
    report: tuple[Claim, ...]
    facts: tuple[Fact, ...]
    verification: Verification
    transcript: tuple[Entry, ...]
    steps: int
    tokens: int
    seconds: float

    def facts_by_id(self) -> dict[str, Fact]:
        """Return the facts by id."""
        return {fact.fact_id: fact for fact in self.facts}


class _Toolbox:
    """
    The tools of an investigation of one alert.

    Each tool returns facts. Identifiers of cards, merchants and devices are never passed to the model.
    """

    def __init__(
        self,
        alert: Alert,
        explanation: Explanation,
        records: Records,
        rule: Callable[[str], str | None],
        history: History | None,
    ) -> None:
        self._alert, self._explanation, self._records, self._rule, self._history = alert, explanation, records, rule, history
        self.found: list[Fact] = []
        self._answers: dict[str, str] = {}

    def _answer(self, name: str, facts: Sequence[Fact]) -> str:
        """
        Return a tool's answer: its facts as JSON, with their English texts.

        Facts of the explanation keep their ids. New facts get ids (``I1`` …) at a tool's first call; its later
        calls return the same answer.
        """
        if name not in self._answers:
            known = {fact.fact_id for fact in self._explanation.facts}
            new = [fact for fact in facts if fact.fact_id not in known]
            begin = len(self.found) + 1
            self.found += [msgspec.structs.replace(fact, fact_id=f"I{number}") for number, fact in enumerate(new, begin)]
            shown = [fact for fact in facts if fact.fact_id in known] + self.found[begin - 1 :]
            self._answers[name] = msgspec.json.encode(
                facts_for_model(NarrativeSubject(tuple(shown), self._explanation.themes))
            ).decode()
        return self._answers[name]

    def card_history(self) -> str:
        """Return the card's habits in 90 days, its last payments before this one, and the outcomes of its other alerts."""
        return self._answer("card_history", [*self._past(Subject.CARD), *self._payments(), self._alerts_of_card()])

    def merchant_history(self) -> str:
        """Return the merchant's payments and reported frauds in 90 days, and the outcomes of its other alerts."""
        merchant = self._alert.transaction.merchant_id
        alerts = _alerts(Subject.MERCHANT, self._others(self._records.of_merchant(merchant, _ALERTS)))
        return self._answer("merchant_history", [*self._past(Subject.MERCHANT), alerts])

    def device_history(self) -> str:
        """Return how the card and other cards used this payment's device in 90 days."""
        facts = self._past(Subject.DEVICE)
        return self._answer("device_history", facts) if facts else "No device was given with this payment."

    def linked_cards(self) -> str:
        """Return the number of other cards with alerts at the same merchant, and of other cards that used the same device."""
        transaction = self._alert.transaction
        others = [
            one
            for one in self._records.of_merchant(transaction.merchant_id, _ALERTS)
            if one.alert.transaction.card_id != transaction.card_id
        ]
        cards = {one.alert.transaction.card_id for one in others}
        frauds = {one.alert.transaction.card_id for one in others if one.finding is Finding.FRAUD}
        values = {"cards": count(len(cards)), "frauds": count(len(frauds))}
        side = Side.FRAUD if frauds else Side.NEITHER
        device = [fact for fact in self._past(Subject.DEVICE) if fact.kind == "device-shared"]
        return self._answer("linked_cards", [Fact("", "found-linked", Subject.MERCHANT, values, side), *device])

    def similar_cases(self) -> str:
        """Return the most similar closed cases and their outcomes."""
        return self._answer("similar_cases", [fact for fact in self._explanation.facts if fact.subject is Subject.CASES])

    def rule_definition(self, rule: Annotated[str, "the rule's id, as given in the facts"]) -> str:
        """Return the definition and the owner of a rule that holds for this payment."""
        if rule not in self._alert.decision.rule_hits:
            return "No such rule holds for this payment."
        words = self._rule(rule)
        if words is None:
            return f"The definition of rule {rule} is not available."
        return self._answer(f"rule_{rule}", [Fact("", "found-rule", Subject.RULE, {"text": text(words)}, Side.FRAUD)])

    def _past(self, about: Subject) -> list[Fact]:
        """Return the archive's facts about the card, merchant or device. Facts already in the explanation keep their ids."""
        if self._history is None:
            found = no_archive()
        else:
            try:
                found = past_facts(self._alert.transaction, card_history(self._alert.transaction, self._history))
            except DatabaseError:
                found = no_archive()
        known = {(fact.kind, msgspec.json.encode(fact.values)): fact for fact in self._explanation.facts}
        own = [fact for fact in found if fact.subject is about or fact.kind.startswith("archive-")]
        return [
            known.get((fact.kind, msgspec.json.encode(fact.values))) or msgspec.structs.replace(fact, fact_id="") for fact in own
        ]

    def _payments(self) -> list[Fact]:
        transaction, facts = self._alert.transaction, []
        for past in self._alert.recent[-_SHOWN:][::-1]:
            if past.amount is None:
                continue
            values = {
                "ago": seconds((transaction.event_time - past.event_time) / 1000),
                "amount": money(past.amount, self._alert.currency or transaction.currency),
                "channel": code(past.channel or "unknown"),
                "country": country(past.country) if past.country else code("no-country"),
            }
            kind = "found-payment-here" if past.same_merchant else "found-payment"
            facts.append(Fact("", kind, Subject.CARD, values))
        return facts

    def _alerts_of_card(self) -> Fact:
        return _alerts(Subject.CARD, self._others(self._records.of_card(self._alert.transaction.card_id, _ALERTS)))

    def _others(self, alerts: "list[Any]") -> "list[Any]":
        return [one for one in alerts if one.alert.alert_id != self._alert.alert_id]

    def tools(self) -> list[Any]:
        """Return the tools as LlamaIndex function tools."""
        from llama_index.core.tools import FunctionTool

        own = (
            self.card_history,
            self.merchant_history,
            self.device_history,
            self.linked_cards,
            self.similar_cases,
            self.rule_definition,
        )
        return [FunctionTool.from_defaults(_checked(tool)) for tool in own]


def _alerts(about: Subject, others: list[Any]) -> Fact:
    """Return the fact that counts other alerts by outcome."""
    findings = Counter(one.finding for one in others)
    closed = findings[Finding.FRAUD] + findings[Finding.LEGITIMATE]
    values = {
        "alerts": count(len(others)),
        "frauds": count(findings[Finding.FRAUD]),
        "legitimate": count(findings[Finding.LEGITIMATE]),
        "open": count(len(others) - closed),
    }
    return Fact("", "found-alerts", about, values, Side.FRAUD if findings[Finding.FRAUD] else Side.NEITHER)


def _checked(tool: Callable[..., str]) -> Callable[..., str]:
    """Wrap a tool so that it reports bad arguments to the model, because LlamaIndex does not validate them."""

    @functools.wraps(tool)
    def checked(**arguments: Any) -> str:
        if not all(isinstance(value, str) and len(value) <= 64 for value in arguments.values()):
            return "Arguments must be strings of at most 64 characters."
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
    limit: float = 120.0,
    history: History | None = None,
    on_entry: Callable[[Entry], None] = lambda entry: None,
    question: str | None = None,
) -> Investigation:
    """
    Let a language model investigate an alert, or answer an analyst's ``question`` about it.

    Failures of the model or its server are not raised but recorded in ``ended``. ``rule`` returns the definition of a rule, or None.
    ``steps`` limits the model's answers, ``tokens`` the tokens of prompts and answers together, and ``limit`` the time in seconds.
    ``history`` is the store of past payments. ``on_entry`` is called with each new entry of the transcript.
    """
    from llama_index.core.agent.workflow import AgentOutput, FunctionAgent, ReActAgent, ToolCall, ToolCallResult
    from workflows.errors import WorkflowRuntimeError, WorkflowTimeoutError

    begin = time.monotonic()
    toolbox = _Toolbox(alert, explanation, records, rule, history)
    transcript: list[Entry] = []
    used, answered, last, ended = 0, 0, "", "finished"

    def note(who: str, what: str) -> None:
        transcript.append(Entry(who, what))
        on_entry(transcript[-1])

    version = INVESTIGATION if question is None else QUESTION
    known = facts_for_model(NarrativeSubject(explanation.facts, explanation.themes))
    asked = prompt(version).filled(known if question is None else {"question": question, "facts": known})
    note("us", asked)
    kind = FunctionAgent if llm.metadata.is_function_calling_model else ReActAgent
    # with ``max_iterations`` n, LlamaIndex rejects the n-th answer even if it is final, so the limit below is one higher
    agent = kind(
        name="investigator", description="looks into an alert", tools=toolbox.tools(), llm=llm, streaming=False, timeout=limit
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
    except Exception as error:  # any failure of the server is recorded in ``ended``
        status = getattr(error, "status_code", None)
        ended = f"failed: {f'HTTP {status}' if status else type(error).__name__}"
    if ended != "finished":
        note("us", f"ended: {ended}")
    subject, name = NarrativeSubject((*explanation.facts, *toolbox.found), explanation.themes), llm.metadata.model_name
    try:
        proposed = parse(last) if last else []
    except ValueError as error:
        ended = ended if ended != "finished" else f"failed: {error}"
        proposed = []
    checked = check(proposed, subject, name)
    report = tuple(one.claim for one in checked if one.claim)[:_SENTENCES]
    INVESTIGATIONS.labels(ended.partition(":")[0]).inc()
    INVESTIGATION_SECONDS.observe(time.monotonic() - begin)
    INVESTIGATION_TOKENS.inc(used)
    mentioned = {mention.fact_id for claim in report for mention in claim.mentions}
    faults = tuple(str(one.fault) for one in checked if one.fault)
    return Investigation(
        alert_id=alert.alert_id,
        model=name,
        prompt=version,
        ended=ended,
        report=report,
        facts=tuple(fact for fact in subject.facts if fact.fact_id in mentioned or fact in toolbox.found),
        verification=Verification(len(checked), len(faults), faults),
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
    """Run ``investigate`` synchronously."""
    return asyncio.run(investigate(*arguments, **named))
