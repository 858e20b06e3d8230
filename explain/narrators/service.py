"""
Calls to an unreliable language model: deadlines, retries, a circuit breaker, a cache and cost accounting.

A slow or failing server never delays an explanation: the template's narrative is in the queue before the first request.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cachetools import LRUCache
from msgspec import Struct
from pybreaker import STATE_OPEN, CircuitBreaker, CircuitBreakerError, CircuitBreakerListener

from core.errors import LanguageModelError
from core.metrics import LLM_BREAKER, LLM_COST, LLM_REQUESTS, LLM_SECONDS, LLM_TOKENS
from core.settings import Settings
from explain.claims import NarrativeSubject, Proposed, parse, schema
from explain.narrators.choices import choice_schema, choices_in_words, parse_choices
from explain.narrators.prompting import CHOICE, facts_for_model, prompt

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

logger = logging.getLogger(__name__)

_TRIES = 3
_FAILURES, _OPEN_SECONDS = 5, 30.0  # consecutive failures that open the breaker, and for how long
_CACHED = 4096
_Read = Callable[[str], list[Proposed | None]]
_RETRYABLE_STATUSES: Final = (408, 409, 425, 429)  # HTTP client-error statuses after which a retry may succeed


class ResponseFormat(Enum):
    """The ways of requesting JSON that follows a schema, from a strict schema to no response format at all."""

    STRICT = "json_schema"  # OpenAI, vLLM, Ollama, llama.cpp's server
    OBJECT = "json_object"  # the server of llama-cpp-python
    PLAIN = "plain"

    def arguments(self, wanted: dict[str, Any]) -> dict[str, Any]:
        """Return the request arguments for an answer that follows a schema."""
        if self is ResponseFormat.STRICT:
            json_schema = {"name": "narrative", "schema": wanted, "strict": True}
            return {"response_format": {"type": "json_schema", "json_schema": json_schema}}
        if self is ResponseFormat.OBJECT:
            return {"response_format": {"type": "json_object", "schema": wanted}}
        return {}


class Usage(Struct):
    """Usage of a language model: requests, prompt tokens, answer tokens, and their cost in the currency of the settings."""

    requests: int = 0
    prompt_tokens: int = 0
    answer_tokens: int = 0
    cost: float = 0.0


class NarratorService:
    """
    A language model as the narrator of all alerts.

    At most ``llm_concurrency`` requests run at once, and each alert has ``llm_timeout`` seconds.
    """

    def __init__(self, llm: "LLM", settings: Settings, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        self.name = llm.metadata.model_name
        self.prompt = prompt(settings.llm_prompt)
        self.usage = Usage()
        self._llm, self._settings, self._sleep = llm, settings, sleep
        self._places = asyncio.Semaphore(settings.llm_concurrency)
        self._breaker = CircuitBreaker(
            fail_max=_FAILURES, reset_timeout=_OPEN_SECONDS, listeners=[_BreakerMetric()], throw_new_error_on_trip=False
        )
        LLM_BREAKER.set(0)
        self._answers: LRUCache[str, list[Proposed | None]] = LRUCache(_CACHED)
        self._format = self._first_format(llm, settings)
        self._not_before = 0.0  # monotonic time before which the server wants no request

    @staticmethod
    def _first_format(llm: "LLM", settings: Settings) -> ResponseFormat:
        """Return the format to try first. An LLM class gets no format unless it declares ``takes_schema``."""
        if not settings.llm_class:
            return ResponseFormat.STRICT
        return ResponseFormat.OBJECT if getattr(llm, "takes_schema", False) else ResponseFormat.PLAIN

    async def narrative(self, subject: NarrativeSubject) -> list[Proposed | None]:
        """
        Return the sentences that the model proposes for an alert, with None for each unreadable sentence.

        Answers are cached by model, prompt and facts.

        Raises:
            LanguageModelError: if the model gives no usable answer in time.
        """
        chooses = self.prompt.version == CHOICE
        facts: Any = choices_in_words(subject) if chooses else facts_for_model(subject)
        wanted = choice_schema(subject) if chooses else schema(subject)
        key = hashlib.sha256(msgspec.json.encode((self.name, self.prompt, facts))).hexdigest()
        if (known := self._answers.get(key)) is not None:
            LLM_REQUESTS.labels("cached").inc()
            return known
        answer = await self._in_time(self.prompt.filled(facts), wanted, lambda text: _read(text, subject, chooses))
        self._answers[key] = answer
        return answer

    async def _in_time(self, text: str, wanted: dict[str, Any], read: _Read) -> list[Proposed | None]:
        try:
            async with self._places:  # waiting for a free place does not count towards the timeout
                async with asyncio.timeout(self._settings.llm_timeout):
                    return await self._with_retries(text, wanted, read)
        except TimeoutError:
            LLM_REQUESTS.labels("late").inc()
            raise LanguageModelError("timed out") from None

    async def _with_retries(self, text: str, wanted: dict[str, Any], read: _Read) -> list[Proposed | None]:
        from tenacity import AsyncRetrying, RetryError, retry_if_exception, stop_after_attempt, wait_random_exponential

        tries = AsyncRetrying(
            retry=retry_if_exception(_is_retryable),
            stop=stop_after_attempt(_TRIES),
            wait=wait_random_exponential(multiplier=0.3, max=5),
            sleep=self._sleep,
        )
        try:
            async for attempt in tries:
                with attempt:
                    return await self._request_once(text, wanted, read)
        except RetryError as error:
            last = error.last_attempt.exception()
            raise LanguageModelError(_reason(last)) from None
        except CircuitBreakerError:
            LLM_REQUESTS.labels("refused by the breaker").inc()
            raise LanguageModelError("the circuit breaker is open") from None
        except LanguageModelError:
            raise
        except Exception as error:
            raise LanguageModelError(_reason(error)) from None
        raise LanguageModelError("no answer")

    async def _request_once(self, text: str, wanted: dict[str, Any], read: _Read) -> list[Proposed | None]:
        if (wait := self._not_before - time.monotonic()) > self._settings.llm_timeout:
            raise LanguageModelError("rate limited")
        if wait > 0:
            await self._sleep(wait)
        begin = time.perf_counter()
        try:
            with self._breaker.calling():
                try:
                    response = await self._request_in_best_format(text, wanted)
                finally:
                    LLM_SECONDS.observe(time.perf_counter() - begin)
        except CircuitBreakerError:
            raise
        except Exception as error:
            LLM_REQUESTS.labels("failed").inc()
            self._back_off(error)
            raise
        self._count(response.raw)
        try:
            answer = read(response.text)
        except ValueError as error:
            LLM_REQUESTS.labels("unusable").inc()
            raise LanguageModelError(str(error)) from None
        LLM_REQUESTS.labels("answered").inc()
        return answer

    async def _request_in_best_format(self, text: str, wanted: dict[str, Any]) -> Any:
        """Return the response in the strictest format that the server accepts, and remember that format."""
        formats = list(ResponseFormat)
        for form in formats[formats.index(self._format) :]:
            try:
                response = await self._llm.acomplete(text, **form.arguments(wanted))
            except Exception as error:
                if form is ResponseFormat.PLAIN or not _rejects_format(error):
                    raise
                logger.info("the server of %s does not accept the response format %s: %s", self.name, form.value, _reason(error))
            else:
                self._format = form
                return response
        raise LanguageModelError("no answer")

    def _back_off(self, error: Exception) -> None:
        """
        After HTTP 429, send no request for the number of seconds in the ``retry-after`` header, at most 60.

        Without this header, wait for one second.
        """
        if getattr(error, "status_code", None) != 429:
            return
        headers = getattr(getattr(error, "response", None), "headers", {})
        try:
            wait = float(headers.get("retry-after", 1))
        except ValueError:
            wait = 1.0  # an HTTP date is rare, and retrying early only brings another 429
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


def _read(text: str, subject: NarrativeSubject, chooses: bool) -> list[Proposed | None]:
    return parse_choices(text, subject) if chooses else parse(text)


def _number(used: Any, *names: str) -> int:
    for name in names:
        found = used.get(name) if isinstance(used, dict) else getattr(used, name, None)
        if isinstance(found, int) and found > 0:
            return found
    return 0


class _BreakerMetric(CircuitBreakerListener):
    """Shows in the metrics whether the breaker is open."""

    def state_change(self, cb: CircuitBreaker, old_state: Any, new_state: Any) -> None:
        LLM_BREAKER.set(new_state.name == STATE_OPEN)


def _rejects_format(error: BaseException) -> bool:
    """Return whether an error may mean an unsupported response format, which llama-cpp-python's server reports as status 500."""
    status = getattr(error, "status_code", None)
    if status == 500:
        return "response_format" in str(error)
    return status is not None and (400 <= status < 500 or status == 501) and status not in (401, 403, *_RETRYABLE_STATUSES)


def _is_retryable(error: BaseException) -> bool:
    """
    Return whether a retry may succeed.

    True for rate limits, overload, server errors and lost connections; False for a refusal and for an answer that cannot be read.
    """
    if isinstance(error, LanguageModelError | CircuitBreakerError) or not isinstance(error, Exception):
        return False
    status = getattr(error, "status_code", None)
    return status is None or status in _RETRYABLE_STATUSES or status >= 500


def _reason(error: BaseException | None) -> str:
    status = getattr(error, "status_code", None)
    return f"HTTP {status}" if status else type(error).__name__
