"""The client of a language model: an OpenAI-compatible server, or any LLM class of LlamaIndex."""

import importlib
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import msgspec

from core.errors import LanguageModelError, SettingsError
from core.settings import Settings

if TYPE_CHECKING:
    from llama_index.core.llms import LLM

_LARGEST = 1_000_000  # maximum bytes of a response; a narrative is a few kilobytes
_ANSWER_TOKENS = 1200


def language_model(settings: Settings) -> "LLM | None":
    """
    Return the language model that the settings describe.

    Return None if the settings have neither a URL nor an LLM class. Only the template is used then.

    Raises:
        SettingsError: if a URL or an LLM class is set without the model's name, a package is not installed, or the LLM class
            cannot be used.
    """
    if not settings.llm_url and not settings.llm_class:
        return None
    if not settings.llm_model:
        raise SettingsError("WHYFLAG_LLM_URL or WHYFLAG_LLM_CLASS is set but WHYFLAG_LLM_MODEL is not: name the model")
    if settings.llm_class:
        return _of_class(settings)
    try:
        import httpx
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
        "max_retries": 0,  # explain.narrators.service retries instead: it counts, delays and limits its requests
        "max_tokens": _ANSWER_TOKENS,
        "temperature": 0.0,
        "async_http_client": httpx.AsyncClient(
            transport=_bounded(httpx, settings.llm_url),
            timeout=settings.llm_timeout,
            headers={"accept-encoding": "identity"},  # uncompressed, so that the size limit counts the actual bytes
        ),
    }
    made: LLM = OpenAILike(**options)
    return made


def _of_class(settings: Settings) -> "LLM":
    """Return an instance of any LlamaIndex LLM class, by its dotted name, with the options from the settings."""
    module, _, name = settings.llm_class.rpartition(".")
    try:
        options = msgspec.json.decode(settings.llm_options or "{}", type=dict[str, Any])
        made: LLM = getattr(importlib.import_module(module), name)(model=settings.llm_model, **options)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise SettingsError(
            f"WHYFLAG_LLM_CLASS {settings.llm_class} cannot be used ({error}): install the LlamaIndex package that provides it, "
            "and give its arguments as a JSON object in WHYFLAG_LLM_OPTIONS"
        ) from None
    return made


def _bounded(httpx: Any, url: str) -> Any:
    """
    Return a transport that aborts a response larger than any narrative, so that an endless response cannot fill the memory.

    The transport uses the environment's proxy, as an httpx client without a custom transport does.
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
