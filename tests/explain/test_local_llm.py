"""A real language model, offline: SmolLM2-135M-Instruct chooses narrative facts, in process and behind llama.cpp's server."""

import asyncio
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from cli.supervisor import free_ports
from core.settings import Settings
from explain.claims import NarrativeSubject, check
from explain.narrators.client import language_model
from explain.narrators.prompting import CHOICE
from explain.narrators.service import NarratorService
from explain.words import LANGUAGES, writer
from tests.conftest import GIVEN

ALERTS = int(GIVEN.get("WHYFLAG_LLM_ALERTS", "200"))

pytestmark = pytest.mark.local_llm


def narrated(settings, explained, count):
    """Let the configured model narrate alerts, check every sentence, and return the seconds that each alert took."""
    llm = language_model(settings)
    narrators = NarratorService(llm, settings)
    taken, sentences = [], 0

    async def run():
        nonlocal sentences
        for _, explanation in explained[:count]:
            subject = NarrativeSubject(explanation.facts, explanation.themes)
            begin = time.perf_counter()
            proposed = await narrators.narrative(subject)
            taken.append(time.perf_counter() - begin)
            checked = check(proposed, subject, narrators.name)
            assert [one.fault for one in checked] == [None] * len(checked)
            assert len(checked) >= 4
            facts = {fact.fact_id: fact for fact in explanation.facts}
            sentences += len(checked)
            for language in LANGUAGES:
                for one in checked:
                    assert writer(language).claim(one.claim, facts).endswith((".", "!", "?"))
        if client := getattr(llm, "_async_http_client", None):
            await client.aclose()

    asyncio.run(run())
    print(
        f"\n{len(taken)} alerts, {sentences} sentences, all valid; median {statistics.median(taken):.1f} s, longest {max(taken):.1f} s"
    )
    return taken


def test_a_model_in_this_process_chooses_valid_narratives(explained):
    pytest.importorskip("llama_cpp", reason="`make test-llm` installs the local-llm extra")
    told = Settings(
        llm_class="explain.narrators.local.LocalModel",
        llm_model="smollm2-135m",
        llm_prompt=CHOICE,
        llm_timeout=120,
        llm_concurrency=1,
    )
    assert len(narrated(told, explained, ALERTS)) == ALERTS


@contextmanager
def llama_server():
    """Run llama-cpp-python's OpenAI-compatible server with the same model and yield its URL."""
    from explain.narrators.local import smollm2

    (port,) = free_ports(1)
    command = [
        sys.executable,
        "-m",
        "llama_cpp.server",
        "--model",
        smollm2(),
        "--n_ctx",
        "4096",
        "--port",
        str(port),
        "--host",
        "127.0.0.1",
    ]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}/v1"
    try:
        for _ in range(120):
            try:
                urllib.request.urlopen(f"{url}/models", timeout=1)
                break
            except (urllib.error.URLError, OSError):
                time.sleep(0.5)
        yield url
    finally:
        server.terminate()
        server.wait()


def test_the_same_model_behind_its_server_negotiates_the_format(explained):
    pytest.importorskip("llama_cpp", reason="`make test-llm` installs the local-llm extra")
    with llama_server() as url:
        told = Settings(llm_url=url, llm_model="smollm2-135m", llm_prompt=CHOICE, llm_timeout=120, llm_concurrency=1)
        assert len(narrated(told, explained, max(10, ALERTS // 10))) >= 10
