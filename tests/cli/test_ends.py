"""What a long-running program writes from its start to its end: JSON lines, the first with its version, the last with the reason."""

import json
import signal
import subprocess
import sys
import threading

import pytest

from cli.supervisor import free_ports
from core.metrics import VERSION
from streams.kafka.embedded import API_VERSION, EmbeddedBroker
from tests.conftest import ROOT


def started(*command):
    return subprocess.Popen([sys.executable, "-m", "cli.main", *command], cwd=ROOT, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def environment(tmp_path, monkeypatch):
    pages, probes = free_ports(2)
    monkeypatch.setenv("WHYFLAG_DATABASE", f"sqlite:///{tmp_path}/q.db")
    monkeypatch.setenv("WHYFLAG_CONSOLE_PORT", str(pages))
    monkeypatch.setenv("WHYFLAG_METRICS_PORT", str(probes))
    monkeypatch.setenv("WHYFLAG_KAFKA_API_VERSION", API_VERSION)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_console_that_is_told_to_stop_says_so_and_exits_with_0(environment, monkeypatch, number):
    with EmbeddedBroker() as broker:
        monkeypatch.setenv("WHYFLAG_KAFKA_BOOTSTRAP", broker.bootstrap)
        with started("console") as process:
            watchdog, lines = threading.Timer(120, process.kill), []
            watchdog.start()
            for line in process.stderr:
                lines.append(json.loads(line))
                if "/invitation/" in lines[-1].get("link", ""):
                    process.send_signal(number)
        assert process.returncode == 0, lines
        watchdog.cancel()
    assert lines[0]["event"] == f"whyflag {VERSION} started: console"
    assert lines[-1]["event"] == "the console has stopped after a signal to stop"
    assert {line["program"] for line in lines} == {"console"}


@pytest.mark.parametrize(
    ("command", "word"),
    [
        (("worker", "score", "--bundle", "/nowhere"), "/nowhere"),
        (("worker", "archive"), "WHYFLAG_ARCHIVE"),
        (("console",), "WHYFLAG_DATABASE"),
    ],
)
def test_the_last_line_of_a_program_that_cannot_start_is_the_reason(environment, monkeypatch, command, word):
    monkeypatch.setenv("WHYFLAG_DATABASE", "sqlite:////no/such/folder/q.db")
    with started(*command) as process:
        lines = [json.loads(line) for line in process.communicate(timeout=120)[1].splitlines()]
    assert process.returncode == 1
    assert "started: " in lines[0]["event"]
    assert lines[-1]["level"] == "critical"
    assert lines[-1]["event"].startswith("stopped: ")
    assert word in lines[-1]["event"]
