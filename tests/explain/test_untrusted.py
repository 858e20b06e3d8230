"""Untrusted text changes no explanation, reaches no prompt, vector or log, and is escaped where it is quoted."""

import asyncio
import html
import json
import logging
import re
from html.parser import HTMLParser
from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analyst.queue import Queue
from core.clock import SystemClock
from core.display import SHOWN, quoted, visible
from core.messages import Finding, encode
from core.settings import Settings
from explain.casebook import Case, Casebook, CasesInMemory
from explain.explainer import Explainer
from explain.facts.attribution import attribute
from explain.narrators.client import language_model
from explain.narrators.service import NarratorService
from explain.words import writer
from tests.analyst.conftest import console
from tests.openai_server import OpenAIServer
from tests.strategies import examples

GOOD = '{"sentences": [{"part": "what_happened", "facts": ["T1.clause"]}]}'
INJECTIONS = json.loads(Path(__file__).with_name("injections.json").read_text())


@given(st.text(max_size=600))
@examples(300)
def test_quoted_text_is_short_plain_and_visible(text):
    shown = quoted(text)
    assert len(shown) <= SHOWN
    assert shown == visible(shown)
    assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u2060\ufeff\x00-\x1f]", shown)


def _hostile(alert, text):
    return msgspec.structs.replace(
        alert, transaction=msgspec.structs.replace(alert.transaction, merchant_name=text[:500], memo=text[:500])
    )


def test_untrusted_text_does_not_change_an_explanation(alerts, bundle):
    alert, told = alerts[-1], []
    own = attribute(alert, bundle)
    for text in ("Baker", *INJECTIONS[::10]):
        noted = Casebook(bundle, CasesInMemory([Case("al_1", Finding.FRAUD, 1, own.x, own.shap, None, text[:2000])]))
        explanation = Explainer(bundle, noted).explain(_hostile(alert, text))
        assert explanation.similar_cases[0].note == text[:2000]
        cases = tuple(msgspec.structs.replace(case, note=None) for case in explanation.similar_cases)
        told.append(msgspec.structs.replace(explanation, similar_cases=cases))
    assert all(one == told[0] for one in told)


class _Elements(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names, self.attributes = set(), []

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)
        self.attributes += [(name, value) for name, value in attrs if name not in ("title", "value")]


def test_untrusted_text_never_reaches_the_page_unescaped(alerts, explainer, tmp_path):
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    with console(queue) as site:
        _check_pages(queue, site(), alerts, explainer)
    queue.close()


def _check_pages(queue, client, alerts, explainer):
    alert, elements = alerts[-1], None
    for number, text in enumerate(("Baker", *INJECTIONS[::3])):
        hostile = msgspec.structs.replace(_hostile(alert, text), alert_id=f"al_{number:04x}")
        told = explainer.explain(hostile)
        case = msgspec.structs.replace(told.similar_cases[0], note=text[:2000], typology="other")
        queue.put(hostile, msgspec.structs.replace(told, similar_cases=(case, *told.similar_cases[1:])))
        page = client.get(f"/alerts/al_{number:04x}")
        assert page.status_code == 200
        assert quoted(text[:500])[:20] in html.unescape(page.text)
        assert not re.search("[\u202a-\u202e\u2066-\u2069\u200b\u2060\ufeff]", page.text)
        seen = _Elements()
        seen.feed(page.text)
        elements = elements or seen.names
        assert seen.names <= elements | {"p", "ul", "li", "details", "summary"}, "untrusted text created an HTML element"
        assert not [name for name, value in seen.attributes if name.startswith("on") or "javascript" in (value or "")]


# -- canaries ------------------------------------------------------------------------------------------------------------------------

PRIVATE = {
    "transaction_id": "CANARYTX", "card_id": "CANARYCARD", "merchant_id": "CANARYMERCHANT",
    "merchant_name": "Jane CANARYNAME, 4111 1111 1111 1111",
    "device_id": "CANARYDEVICE", "ip": "203.0.113.77",
    "memo": "jane.canary@example.org +49 170 5550123 CANARYSTREET 12, 10115 Berlin, 5500-0000-0000-0004",
}  # fmt: skip
CANARIES = (
    "CANARY", "canary", "4111 1111", "4111111", "203.0.113", "5550123", "Berlin", "5500-0000", "55000000", "example.org", "Jane",
)  # fmt: skip


@pytest.mark.parametrize(
    "answer",
    [GOOD, "500", "malformed", '{"sentences": [{"part": "what_happened", "facts": ["Somebody paid."]}]}'],
)
def test_nothing_private_reaches_a_prompt_a_vector_a_log_or_a_trace(alerts, bundle, caplog, answer):
    from llama_index.core.instrumentation import get_dispatcher
    from llama_index.core.instrumentation.event_handlers import BaseEventHandler

    traced = []

    class Traces(BaseEventHandler):
        def handle(self, event, **kwargs):
            traced.append(event.model_dump_json(exclude={"messages", "response"}, fallback=str) + repr(event))

    alert = msgspec.structs.replace(
        alerts[-1], alert_id="al_feed", transaction=msgspec.structs.replace(alerts[-1].transaction, **PRIVATE)
    )
    own = attribute(alert, bundle)
    source = CasesInMemory([Case("al_1", Finding.FRAUD, 1, own.x, own.shap, None, PRIVATE["memo"])])
    casebook = Casebook(bundle, source)
    np.testing.assert_array_equal(casebook.vector(own.x, own.shap), casebook.vector(attribute(alerts[-1], bundle).x, own.shap))
    dispatcher, handler = get_dispatcher(), Traces()
    dispatcher.add_event_handler(handler)
    try:
        with OpenAIServer([answer]) as server, caplog.at_level(logging.DEBUG):
            told = Settings(llm_url=server.url, llm_model="local", llm_timeout=5)

            async def run():
                async def no_sleep(seconds):
                    await asyncio.sleep(0)

                explainer = Explainer(bundle, casebook, NarratorService(language_model(told), told, no_sleep))
                explanation = explainer.explain(alert)
                return explanation, await explainer.narrate(explanation)

            explanation, _ = asyncio.run(run())
            sent = json.dumps(server.requests)
    finally:
        dispatcher.event_handlers.remove(handler)
    assert server.requests
    assert traced
    logged = "\n".join(f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    facts = {fact.fact_id: fact for fact in explanation.facts}
    shown = encode(explanation.facts).decode() + " ".join(writer("en").claim(claim, facts) for claim in explanation.narrative)
    for canary in CANARIES:
        for where, text in (("prompt", sent), ("log", logged), ("trace", " ".join(traced)), ("facts", shown)):
            assert canary not in text, (canary, where)
