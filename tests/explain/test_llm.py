"""Language models over the real OpenAI protocol: even a faulty one never blocks an explanation or makes it false."""

import asyncio
import json
import random
import time
from contextlib import contextmanager

import pytest

from core.errors import LanguageModelError, SettingsError
from core.messages import Part
from core.settings import Settings
from explain.claims import TEMPLATE, Fault, NarrativeSubject, answer_of, check, template_claims
from explain.explainer import Explainer
from explain.narrators.choices import choice_schema, choices_in_words, parse_choices
from explain.narrators.client import language_model
from explain.narrators.prompting import facts_for_model, prompt
from explain.narrators.service import NarratorService
from tests.conftest import metric
from tests.openai_server import FAULTS, OpenAIServer

GOOD = '{"sentences": [{"part": "what_happened", "facts": ["T1.clause", "S1.clause"]}]}'
FALSE = '{"sentences": [{"part": "what_happened", "facts": ["The card was stolen."]}]}'


async def _no_sleep(seconds):
    await asyncio.sleep(0)


@contextmanager
def narrating(bundle, casebook, script, sleep=_no_sleep, **settings):
    """Yield a server and a function that explains alerts and has the server narrate them."""
    with OpenAIServer(script) as server:
        told = Settings(llm_url=server.url, llm_model="local", **({"llm_timeout": 5.0} | settings))

        def narrated(*alerts):
            async def run():
                narrators = NarratorService(language_model(told), told, sleep)
                explainer = Explainer(bundle, casebook, narrators)
                explanations = [explainer.explain(alert) for alert in alerts]
                return explanations, await asyncio.gather(*(explainer.narrate(one) for one in explanations)), narrators

            return asyncio.run(run())

        yield server, narrated


def test_any_openai_compatible_server_can_word_the_facts(bundle, casebook, alerts):
    with narrating(bundle, casebook, [GOOD]) as (server, narrated):
        (explanation,), (after,), _ = narrated(alerts[0])
    assert after.narrator == "local"
    assert [mention.fact_id for mention in after.narrative[0].mentions] == ["T1", "S1"]
    assert after.narrative[0].written_by == "local"
    assert after.narrative[-1].written_by == TEMPLATE
    assert after.prompt == "narrative-3"
    assert (after.facts, after.similar_cases) == (explanation.facts, explanation.similar_cases)
    path, body = server.requests[0]
    assert path == "/v1/chat/completions"
    assert body["response_format"]["json_schema"]["schema"]["properties"].keys() == {"sentences"}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_template_narrative_stands_after_any_server_fault(bundle, casebook, alerts, fault):
    with narrating(bundle, casebook, [fault], llm_timeout=3.0) as (server, narrated):
        begin = time.monotonic()
        (explanation,), (after,), _ = narrated(alerts[0])
        assert time.monotonic() - begin < 20, "the timeout does not end the request"
    assert after is None
    assert explanation.narrator == TEMPLATE
    assert server.requests


@pytest.mark.parametrize("fault", ["429", "500", "cut", "malformed", "no choices"])
def test_a_transient_fault_is_retried(bundle, casebook, alerts, fault):
    with narrating(bundle, casebook, [fault, GOOD]) as (server, narrated):
        _, (after,), _ = narrated(alerts[0])
    assert after is not None
    assert len(server.requests) == 2


def test_an_answer_with_the_wrong_schema_is_not_retried(bundle, casebook, alerts):
    with narrating(bundle, casebook, ["wrong schema", GOOD]) as (server, narrated):
        assert narrated(alerts[0])[1] == [None]
    assert len(server.requests) == 1


def test_a_rate_limited_request_waits_for_the_retry_after_header(bundle, casebook, alerts):
    with narrating(bundle, casebook, ["429", GOOD], asyncio.sleep) as (server, narrated):
        server.retry_after = "1"
        narrated(alerts[0])
    assert server.times[1] - server.times[0] >= 0.95


def test_the_circuit_breaker_opens_after_consecutive_failures_and_stops_requests(bundle, casebook, alerts):
    before = metric("whyflag_llm_requests_total", result="refused by the breaker")
    with narrating(bundle, casebook, ["500"]) as (server, narrated):
        _, after, _ = narrated(*alerts[:12])
    assert after == [None] * 12
    assert metric("whyflag_llm_requests_total", result="refused by the breaker") > before
    assert 5 <= len(server.requests) <= 9  # four requests may be in flight when it opens
    assert metric("whyflag_llm_breaker_open") == 1


def test_concurrent_requests_are_limited_by_the_settings(bundle, casebook, alerts):
    under_way, most = 0, 0

    def script(body):
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.1)
        under_way -= 1
        return GOOD

    with narrating(bundle, casebook, script, llm_concurrency=2) as (_, narrated):
        _, after, _ = narrated(*alerts[:8])
    assert all(after)
    assert most == 2


def test_the_same_evidence_is_requested_and_paid_for_once(bundle, casebook, alerts):
    with OpenAIServer([GOOD]) as server:
        told = Settings(llm_url=server.url, llm_model="local", llm_prompt_price=2.0, llm_answer_price=10.0)

        async def twice():
            narrators = NarratorService(language_model(told), told, _no_sleep)
            explainer = Explainer(bundle, casebook, narrators)
            explanation = explainer.explain(alerts[0])
            return await explainer.narrate(explanation), await explainer.narrate(explanation), narrators.usage

        first, second, usage = asyncio.run(twice())
    assert first == second
    assert len(server.requests) == usage.requests == 1
    assert (usage.prompt_tokens, usage.answer_tokens) == (700, 90)
    assert usage.cost == pytest.approx((700 * 2 + 90 * 10) / 1e6)
    assert metric("whyflag_llm_tokens_total", kind="prompt") >= 700


def test_a_refused_sentence_is_replaced_by_the_templates(bundle, casebook, alerts):
    both = json.dumps({"sentences": json.loads(FALSE)["sentences"] + json.loads(GOOD)["sentences"]})
    with narrating(bundle, casebook, [both]) as (server, narrated):
        _, (after,), _ = narrated(alerts[0])
    assert len(server.requests) == 1
    assert (after.verification.checked, after.verification.replaced) == (2, 1)
    assert after.verification.reasons == (Fault.UNKNOWN_FACT,)
    assert [claim.written_by for claim in after.narrative].count("local") == 1


def test_the_template_narrative_stands_if_every_sentence_is_refused(bundle, casebook, alerts):
    with narrating(bundle, casebook, [FALSE]) as (_, narrated):
        assert narrated(alerts[0])[1] == [None]


def test_a_fully_valid_narrative_is_shown_unchanged(bundle, casebook, alerts, explainer):
    explanation = explainer.explain(alerts[0])
    answer = answer_of(template_claims(NarrativeSubject(explanation.facts, explanation.themes)))
    with narrating(bundle, casebook, [answer]) as (_, narrated):
        _, (after,), _ = narrated(alerts[0])
    assert {claim.written_by for claim in after.narrative} == {"local"}
    assert after.verification.replaced == 0


def _takes(*formats, refusal="422"):
    """Return a script that accepts requests in some response formats and refuses others, as real servers do."""

    def script(body):
        return GOOD if body.get("response_format", {}).get("type", "plain") in formats else refusal

    return script


@pytest.mark.parametrize("refusal", ["422", "500 format"])
@pytest.mark.parametrize(
    ("formats", "requests"),
    [
        (("json_schema",), ["json_schema", "json_schema"]),
        (("json_object", "plain"), ["json_schema", "json_object", "json_object"]),
        (("plain",), ["json_schema", "json_object", "plain", "plain"]),
    ],
)
def test_the_format_is_negotiated_once(bundle, casebook, alerts, formats, requests, refusal):
    with narrating(bundle, casebook, _takes(*formats, refusal=refusal), llm_concurrency=1) as (server, narrated):
        _, after, _ = narrated(*alerts[:2])
    assert all(after)
    asked = [body.get("response_format", {}) for _, body in server.requests]
    assert [one.get("type", "plain") for one in asked] == requests
    for one in asked:
        if one:
            schema = one.get("schema") or one["json_schema"]["schema"]
            assert "anyOf" in schema["properties"]["sentences"]["items"]


def test_negotiation_starts_again_if_a_server_refuses_every_format(bundle, casebook, alerts):
    with narrating(bundle, casebook, _takes(), llm_concurrency=1) as (server, narrated):
        _, after, _ = narrated(*alerts[:2])
    assert after == [None, None]
    types = [body.get("response_format", {}).get("type", "plain") for _, body in server.requests]
    assert types == ["json_schema", "json_object", "plain"] * 2


def test_a_prompt_can_come_from_a_file(bundle, casebook, alerts, tmp_path):
    own = tmp_path / "ours.txt"
    own.write_text("Word this: {marker}\n{facts}\n{marker}\n")
    with narrating(bundle, casebook, [GOOD], llm_prompt=str(own)) as (server, narrated):
        _, (after,), _ = narrated(alerts[0])
    assert after.prompt.startswith("ours-")
    assert server.requests[0][1]["messages"][0]["content"].startswith("Word this: ")


@pytest.mark.parametrize("text", ["no places", "{marker}{facts}", "{marker}\n{facts}\n{marker}\n{other}", "{marker {facts}"])
def test_a_prompt_that_cannot_be_filled_in_raises_a_settings_error(text, tmp_path):
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(SettingsError, match="the prompt"):
        prompt(str(path))


def test_the_error_for_a_missing_prompt_lists_the_available_ones():
    with pytest.raises(SettingsError, match="narrative-3"):
        prompt("no-such-prompt")


def test_prompt_files_match_the_manifest():
    from importlib import resources

    folder = resources.files("explain").joinpath("prompts")
    manifest = json.loads(folder.joinpath("manifest.json").read_text())
    assert {f"{name}.txt" for name in manifest} == {p.name for p in folder.iterdir() if p.name.endswith(".txt")}
    for name in manifest:
        assert prompt(name).text


def test_prompts_fence_their_facts_with_a_new_marker_each_time(explainer, alerts):
    explanation = explainer.explain(alerts[0])
    facts = facts_for_model(NarrativeSubject(explanation.facts, explanation.themes))
    one, two = (prompt("narrative-3").filled(facts) for _ in range(2))
    assert one != two
    marker = one.rstrip("\n").split("\n")[-1]
    assert one.count(marker) == 3


def test_any_llamaindex_class_can_be_named(bundle, casebook, alerts):
    named = Settings(llm_class="llama_index.core.llms.mock.MockLLM", llm_model="mock", llm_options='{"max_tokens": 5}')
    with pytest.raises(SettingsError, match="WHYFLAG_LLM_CLASS"):
        language_model(named)  # MockLLM accepts no model name
    with OpenAIServer([GOOD]) as server:
        options = json.dumps({"api_base": server.url, "api_key": "none", "is_chat_model": True, "max_retries": 0})
        told = Settings(llm_class="llama_index.llms.openai_like.OpenAILike", llm_model="local", llm_options=options)

        async def run():
            explainer = Explainer(bundle, casebook, NarratorService(language_model(told), told))
            return await explainer.narrate(explainer.explain(alerts[0]))

        assert asyncio.run(run()).narrator == "local"


def test_invalid_settings_raise_a_settings_error():
    with pytest.raises(SettingsError, match="WHYFLAG_LLM_MODEL"):
        language_model(Settings(llm_url="http://127.0.0.1:1/v1"))
    with pytest.raises(SettingsError, match="WHYFLAG_LLM_CLASS"):
        language_model(Settings(llm_class="no.such.Class", llm_model="m"))
    with pytest.raises(SettingsError, match="WHYFLAG_LLM_CLASS"):
        language_model(Settings(llm_class="llama_index.llms.openai_like.OpenAILike", llm_model="m", llm_options="[1]"))
    assert language_model(Settings()) is None


def test_an_unreachable_server_raises_a_language_model_error():
    told = Settings(llm_url="http://127.0.0.1:1/v1", llm_model="m")

    async def run():
        await NarratorService(language_model(told), told, _no_sleep).narrative(NarrativeSubject(()))

    with pytest.raises(LanguageModelError, match="APIConnectionError"):
        asyncio.run(run())


# -- narratives by choice ------------------------------------------------------------------------------------------------------------


def test_every_allowed_choice_makes_a_narrative_without_faults(explained):
    rng = random.Random(3)
    for _, explanation in explained:
        subject = NarrativeSubject(explanation.facts, explanation.themes)
        wanted = choice_schema(subject)["properties"]
        assert choices_in_words(subject).keys() == wanted.keys()
        answer = json.dumps({name: rng.choice(one["enum"]) for name, one in wanted.items()})
        checked = check(parse_choices(answer, subject), subject, "local")
        assert [one.fault for one in checked] == [None] * len(wanted)
        assert {claim.claim.part for claim in checked} >= {Part.WHY_UNUSUAL, Part.SIMILAR_CASES} or not explanation.themes


def test_an_invalid_choice_is_refused_without_affecting_the_others(explained):
    _, explanation = explained[0]
    subject = NarrativeSubject(explanation.facts, explanation.themes)
    answer = '{"fraud_1": "F99", "cases": "C1", "more": 7}'
    assert [one.fault for one in check(parse_choices(answer, subject), subject, "local")] == [Fault.UNREADABLE, None]
    for nothing in ("", "F1", "[]", '{"a": '):
        with pytest.raises(ValueError, match="answer"):
            parse_choices(nothing, subject)


def test_a_choice_prompt_works_over_the_protocol(bundle, casebook, alerts):
    def choose(body):
        schema = body["response_format"]["json_schema"]["schema"]
        return json.dumps({name: one["enum"][0] for name, one in schema["properties"].items()})

    with narrating(bundle, casebook, choose, llm_prompt="choice-1") as (server, narrated):
        _, (after,), _ = narrated(alerts[0])
    assert after.verification.replaced == 0
    assert after.prompt == "choice-1"
    assert {claim.part for claim in after.narrative} == set(Part)
    assert "Sentences" in server.requests[0][1]["messages"][0]["content"].title()
