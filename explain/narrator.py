"""
Who words the explanation: the template by default, or any OpenAI-compatible language model by setting.

Both stand behind LlamaIndex's LLM interface, get the same prompt and answer the same JSON. A narrator words facts; it never
chooses a score, an outcome, a reason or a case.
"""

import secrets
from importlib import resources
from typing import TYPE_CHECKING, Any, Final

import msgspec
from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from msgspec import Struct

from core.errors import SettingsError
from core.messages import EvidenceItem
from core.settings import Settings

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

PROMPT: Final = "narrative-1"
TEMPLATE: Final = "template-1"
PARTS: Final = ("what_happened", "why_unusual", "similar_cases", "speaks_against", "next_step")
_LONGEST_ANSWER = 20_000  # characters; a narrative has 120 words


class Facts(Struct, frozen=True):
    """What a narrator is given: no field of the transaction, only evidence that was worded by us."""

    evidence: tuple[EvidenceItem, ...]
    suggestion: str


class Claim(Struct, frozen=True):
    """One sentence as a narrator proposes it."""

    part: str
    text: str
    evidence_ids: tuple[str, ...]


class Narrative(Struct, frozen=True):
    """A narrator's answer."""

    sentences: tuple[Claim, ...]


def prompt_for(facts: Facts) -> str:
    """The prompt, its facts fenced by a marker nobody can guess."""
    text = resources.files("explain").joinpath("prompts", f"{PROMPT}.txt").read_text()
    marker = f"=== {secrets.token_hex(8)} ==="
    return text.format(marker=marker, facts=msgspec.json.encode(facts).decode())


def parse(answer: str) -> Narrative:
    """
    A narrator's answer, from the JSON object in it.

    Raises:
        ValueError: if there is none of the right form.
    """
    if len(answer) > _LONGEST_ANSWER:
        raise ValueError("the answer is too long")
    begin, end = answer.find("{"), answer.rfind("}")
    if begin < 0 or end < begin:
        raise ValueError("the answer holds no JSON object")
    try:
        return msgspec.json.decode(answer[begin : end + 1], type=Narrative)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        raise ValueError(f"the answer is not a narrative: {error}") from None


def template_claims(facts: Facts) -> Narrative:
    """The five parts in fixed words, right by construction: each sentence is its evidence's own text."""
    by_kind: dict[str, list[EvidenceItem]] = {}
    for item in facts.evidence:
        by_kind.setdefault(item.kind, []).append(item)
    contributions = by_kind.get("contribution", [])
    claims = [Claim("what_happened", item.text, (item.evidence_id,)) for item in by_kind.get("timeline", [])]
    claims += [Claim("what_happened", item.text, (item.evidence_id,)) for item in by_kind.get("score", [])]
    speaking_for = [item for item in contributions if (item.contribution or 0) > 0][:3]
    claims += [
        Claim("why_unusual", item.text, (item.evidence_id,))
        for item in (*speaking_for, *by_kind.get("novelty", []), *by_kind.get("rule", []))
    ]
    claims += [Claim("similar_cases", item.text, (item.evidence_id,)) for item in by_kind.get("cases", [])]
    against = [item for item in contributions if (item.contribution or 0) < 0][:2]
    claims += [Claim("speaks_against", f"Against fraud: {item.text}", (item.evidence_id,)) for item in against]
    if not against and contributions:
        claims.append(
            Claim("speaks_against", "None of the strongest reasons speaks against fraud.", (contributions[0].evidence_id,))
        )
    claims.append(Claim("next_step", facts.suggestion, (facts.evidence[0].evidence_id,)))
    return Narrative(tuple(claims))


class TemplateNarrator(CustomLLM):
    """A language model that is none: it reads the facts out of the prompt and words them by template."""

    @property
    def metadata(self) -> LLMMetadata:
        """Its name; it has no limits worth naming."""
        return LLMMetadata(model_name=TEMPLATE)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The template's narrative of the facts between the prompt's markers, as JSON."""
        lines = prompt.rstrip("\n").split("\n")
        facts = msgspec.json.decode("\n".join(lines[lines.index(lines[-1], len(lines) // 2) + 1 : -1]), type=Facts)
        return CompletionResponse(text=msgspec.json.encode(template_claims(facts)).decode())

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same in one piece."""
        yield self.complete(prompt)


def language_model(settings: Settings) -> "LLM | None":
    """
    The language model of the settings, None where the template is to do.

    Raises:
        SettingsError: if the settings name a server without a model, or the extra is not installed.
    """
    if not settings.llm_url:
        return None
    if not settings.llm_model:
        raise SettingsError("WHYFLAG_LLM_URL is set but WHYFLAG_LLM_MODEL is not: name the model the server knows")
    try:
        from llama_index.llms.openai_like import OpenAILike
    except ImportError:
        raise SettingsError("a language model needs the llm extra: pip install 'whyflag[llm]'") from None
    return OpenAILike(
        model=settings.llm_model,
        api_base=settings.llm_url,
        api_key=settings.llm_key,
        is_chat_model=True,
        should_use_structured_outputs=True,
        timeout=settings.llm_timeout,
        max_retries=1,
        max_tokens=600,
        temperature=0.0,
        additional_kwargs={"response_format": response_format()},
    )


def response_format() -> dict[str, Any]:
    """The JSON Schema of a narrative, as OpenAI-compatible servers take it."""
    claim = {
        "type": "object",
        "properties": {
            "part": {"type": "string", "enum": list(PARTS)},
            "text": {"type": "string"},
            "evidence_ids": {"type": "array", "items": {"type": "string"}},
        },
        "required": ["part", "text", "evidence_ids"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {"sentences": {"type": "array", "items": claim}},
        "required": ["sentences"],
        "additionalProperties": False,
    }
    return {"type": "json_schema", "json_schema": {"name": "narrative", "schema": schema, "strict": True}}
