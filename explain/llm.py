"""
A language model as a service that fails: deadlines, retries, a breaker, a cache, and what it costs.

Whatever the server does, an explanation is never late for it: the template's words are in the queue before the first request.
"""

import asyncio
import hashlib
import importlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec
from cachetools import LRUCache
from msgspec import Struct

from core.errors import SettingsError
from core.metrics import LLM_BREAKER, LLM_COST, LLM_REQUESTS, LLM_SECONDS, LLM_TOKENS
from core.settings import Settings
from explain.narrator import PARTS, Facts, Narrative, parse
from explain.prompting import REPAIR, Prompt, prompt

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

_TRIES = 3
_FAILURES, _OPEN_SECONDS = 5, 30.0  # so many failures in a row open the breaker for so long
_LARGEST = 1_000_000  # bytes of a response; a narrative is a few kilobytes
_ANSWER_TOKENS = 700
_CACHED = 4096
_AGAIN: Final = (408, 409, 425, 429)  # HTTP statuses after which the same request may succeed


class LanguageModelError(Exception):
    """The language model gave no answer of use; the message says why in a word or two."""


class Usage(Struct):
    """What was used: requests, tokens of prompts and of answers, and their price in the currency of the settings."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0


class TimeLeft:
    """How many seconds an alert may still be under way to the model."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Narrators:
    """One language model for all alerts: ``llm_concurrency`` requests at once, each alert within ``llm_timeout`` seconds."""

    def __init__(self, llm: "LLM", settings: Settings, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        from purgatory import AsyncCircuitBreakerFactory

        self.name = llm.metadata.model_name
        self.prompt = prompt(settings.llm_prompt)
        self.usage = Usage()
        self._llm, self._settings, self._sleep = llm, settings, sleep
        self._places = asyncio.Semaphore(settings.llm_concurrency)
        self._breakers = AsyncCircuitBreakerFactory(default_threshold=_FAILURES, default_ttl=_OPEN_SECONDS)
        self._breakers.add_listener(_breaker_told)
        self._answers: LRUCache[str, Narrative] = LRUCache(_CACHED)
        self._not_before = 0.0  # monotonic time until which the server asked to be left alone

    def time_left(self) -> "TimeLeft":
        """The time that one alert has for its narrative and its repair."""
        return TimeLeft(self._settings.llm_timeout)

    async def narrative(self, facts: Facts, left: "TimeLeft | None" = None) -> Narrative:
        """
        The model's narrative of some facts; the same for the same evidence and prompt. ``left`` is shared with a repair.

        Raises:
            LanguageModelError: if there is none in time.
        """
        key = self._key(self.prompt, facts)
        if (known := self._answers.get(key)) is not None:
            LLM_REQUESTS.labels("cached").inc()
            return known
        answer = await self._asked(self.prompt.filled(facts), left or self.time_left())
        self._answers[key] = answer
        return answer

    async def repair(self, facts: Facts, refused: list[tuple[Any, str]], left: "TimeLeft") -> Narrative:
        """
        The sentences that were refused, worded once more in the time that is left.

        Raises:
            LanguageModelError: if there is no answer in time.
        """
        asked = {
            "refused": [{"part": c.part, "text": c.text, "evidence_ids": c.evidence_ids, "reason": why} for c, why in refused],
            "facts": facts,
        }
        return await self._asked(prompt(REPAIR).filled(asked), left)

    def _key(self, asked: Prompt, facts: Facts) -> str:
        whole = msgspec.json.encode((self.name, asked.version, asked.text, facts))
        return hashlib.sha256(whole).hexdigest()

    async def _asked(self, text: str, left: "TimeLeft") -> Narrative:
        try:
            async with self._places:  # waiting for a place is not lateness
                begin = time.monotonic()
                try:
                    async with asyncio.timeout(left.seconds):
                        return await self._tried(text)
                finally:
                    left.seconds = max(0.0, left.seconds - (time.monotonic() - begin))
        except TimeoutError:
            LLM_REQUESTS.labels("late").inc()
            raise LanguageModelError("late") from None

    async def _tried(self, text: str) -> Narrative:
        from purgatory.domain.model import OpenedState
        from tenacity import AsyncRetrying, RetryError, retry_if_exception, stop_after_attempt, wait_random_exponential

        tries = AsyncRetrying(
            retry=retry_if_exception(_may_succeed_again),
            stop=stop_after_attempt(_TRIES),
            wait=wait_random_exponential(multiplier=0.3, max=5),
            sleep=self._sleep,
        )
        try:
            async for attempt in tries:
                with attempt:
                    return await self._once(text)
        except RetryError as error:
            last = error.last_attempt.exception()
            raise LanguageModelError(_reason(last)) from None
        except OpenedState:
            LLM_REQUESTS.labels("refused by the breaker").inc()
            raise LanguageModelError("the breaker is open") from None
        except LanguageModelError:
            raise
        except Exception as error:
            raise LanguageModelError(_reason(error)) from None
        raise LanguageModelError("no answer")

    async def _once(self, text: str) -> Narrative:
        if (wait := self._not_before - time.monotonic()) > self._settings.llm_timeout:
            raise LanguageModelError("rate limited")
        if wait > 0:
            await self._sleep(wait)
        begin = time.perf_counter()
        try:
            async with await self._breakers.get_breaker("llm"):
                try:
                    response = await self._llm.acomplete(text)
                finally:
                    LLM_SECONDS.observe(time.perf_counter() - begin)
        except Exception as error:
            if type(error).__name__ != "OpenedState":
                LLM_REQUESTS.labels("failed").inc()
            self._snooze(error)
            raise
        self._count(response.raw)
        try:
            answer = parse(response.text)
        except ValueError as error:
            LLM_REQUESTS.labels("unusable").inc()
            raise LanguageModelError(str(error)) from None
        LLM_REQUESTS.labels("answered").inc()
        return answer

    def _snooze(self, error: Exception) -> None:
        """After a 429 nobody asks before the time that the server names, or a second."""
        if getattr(error, "status_code", None) != 429:
            return
        headers = getattr(getattr(error, "response", None), "headers", {})
        try:
            wait = float(headers.get("retry-after", 1))
        except ValueError:
            wait = 1.0  # a date: rare, and the next answer says it again
        self._not_before = max(self._not_before, time.monotonic() + min(max(wait, 0.0), 60.0))

    def _count(self, raw: Any) -> None:
        used = getattr(raw, "usage", None) or (raw.get("usage") if isinstance(raw, dict) else None)
        asked, answered = (
            _number(used, *names) for names in (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
        )
        cost = (asked * self._settings.llm_prompt_price + answered * self._settings.llm_answer_price) / 1e6
        self.usage.requests += 1
        self.usage.prompt_tokens += asked
        self.usage.answer_tokens += answered
        self.usage.cost += cost
        LLM_TOKENS.labels("prompt").inc(asked)
        LLM_TOKENS.labels("answer").inc(answered)
        LLM_COST.inc(cost)


def _number(used: Any, *names: str) -> int:
    for name in names:
        found = used.get(name) if isinstance(used, dict) else getattr(used, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return 0


def _breaker_told(name: str, kind: str, happened: Any) -> None:
    if kind == "state_changed":
        LLM_BREAKER.set(getattr(happened, "state", "") == "opened")


def _may_succeed_again(error: BaseException) -> bool:
    """Rate limits, overload, server errors and lost connections; not a refusal, and not an answer that cannot be read."""
    if isinstance(error, LanguageModelError) or type(error).__name__ == "OpenedState" or not isinstance(error, Exception):
        return False
    status = getattr(error, "status_code", None)
    return status is None or status in _AGAIN or status >= 500


def _reason(error: BaseException | None) -> str:
    status = getattr(error, "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__


def language_model(settings: Settings, structured: bool = True) -> "LLM | None":
    """
    The language model of the settings, None where the template is to do; ``structured`` holds it to a narrative's JSON.

    Raises:
        SettingsError: if the settings name a server without a model, or what they name is not installed.
    """
    if not settings.llm_url and not settings.llm_class:
        return None
    if not settings.llm_model:
        raise SettingsError("WHYFLAG_LLM_URL is set but WHYFLAG_LLM_MODEL is not: name the model the server knows")
    if settings.llm_class:
        return _of_class(settings)
    try:
        import httpx
        import purgatory  # noqa: F401
        from llama_index.llms.openai_like import OpenAILike
    except ImportError:
        raise SettingsError("a language model needs the llm extra: pip install 'whyflag[llm]'") from None
    options: dict[str, Any] = {
        "model": settings.llm_model,
        "api_base": settings.llm_url,
        "api_key": settings.llm_key,
        "is_chat_model": True,
        "is_function_calling_model": True,
        "should_use_structured_outputs": True,
        "timeout": settings.llm_timeout,
        "max_retries": 0,  # retries are ours: they count, wait and stop
        "max_tokens": _ANSWER_TOKENS,
        "temperature": 0.0,
        "async_http_client": httpx.AsyncClient(
            transport=_bounded(httpx, settings.llm_url),
            timeout=settings.llm_timeout,
            headers={"accept-encoding": "identity"},  # what is counted is what comes
        ),
    }
    if structured:
        options["additional_kwargs"] = {"response_format": response_format()}
    made: LLM = OpenAILike(**options)
    return made


def _of_class(settings: Settings) -> "LLM":
    """Any LLM class of LlamaIndex, by its dotted name, with the settings' options."""
    module, _, name = settings.llm_class.rpartition(".")
    try:
        options = msgspec.json.decode(settings.llm_options or "{}", type=dict[str, Any])
        made: LLM = getattr(importlib.import_module(module), name)(model=settings.llm_model, **options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"WHYFLAG_LLM_CLASS {settings.llm_class} cannot be used ({error}): install the LlamaIndex package that has it, "
            "and give its arguments as a JSON object in WHYFLAG_LLM_OPTIONS"
        ) from None
    return made


def _bounded(httpx: Any, url: str) -> Any:
    """
    A transport that gives up on a response larger than any narrative, so that an endless one cannot fill the memory. It goes through the
    environment's proxy, as a client without a transport of its own would.
    """
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)

    class Bounded(httpx.AsyncBaseTransport):  # type: ignore[misc]
        def __init__(self) -> None:
            self._inner = httpx.AsyncHTTPTransport(proxy=proxy)

        async def handle_async_request(self, request: Any) -> Any:
            response = await self._inner.handle_async_request(request)
            if response.headers.get("content-encoding", "identity") != "identity":
                await response.aclose()
                raise LanguageModelError("the response is compressed")
            return httpx.Response(
                response.status_code, headers=response.headers, stream=_Cut(response.stream), extensions=response.extensions
            )

        async def aclose(self) -> None:
            await self._inner.aclose()

    class _Cut(httpx.AsyncByteStream):  # type: ignore[misc]
        def __init__(self, stream: Any) -> None:
            self._stream = stream

        async def __aiter__(self) -> Any:
            size = 0
            async for part in self._stream:
                size += len(part)
                if size > _LARGEST:
                    raise LanguageModelError("the response is too large")
                yield part

        async def aclose(self) -> None:
            await self._stream.aclose()

    return Bounded()


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
