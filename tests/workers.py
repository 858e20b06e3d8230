"""Real workers against a real protocol: child processes of the command line, on the embedded broker or on Apache Kafka."""

import os
import subprocess
import sys
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

from cli.demo import free_ports
from core.settings import Settings
from streams.clients import Observer


class Worker:
    """``with Worker(...)``: a worker process, ready when the block begins and stopped by SIGTERM when it ends."""

    def __init__(self, kind: str, settings: Settings, *options: str, bundle: Path | None = None, database: str = "") -> None:
        self.kind, self.options = kind, options
        (self.port,) = free_ports(1)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WHYFLAG_")} | {
            "WHYFLAG_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "WHYFLAG_KAFKA_API_VERSION": settings.kafka_api_version,
            "WHYFLAG_CHECKPOINTS": str(settings.checkpoints).lower(),
            "WHYFLAG_CHECKPOINT_SECONDS": str(settings.checkpoint_seconds),
            "WHYFLAG_SESSION_SECONDS": str(settings.session_seconds),
            "WHYFLAG_STALLED_SECONDS": str(settings.stalled_seconds),
            "WHYFLAG_METRICS_PORT": str(self.port),
            "WHYFLAG_BUNDLE": str(bundle or "/no/bundle"),
            "WHYFLAG_LLM_URL": settings.llm_url,
            "WHYFLAG_LLM_MODEL": settings.llm_model,
        }
        if database:
            self.environment["WHYFLAG_DATABASE"] = database

    def __enter__(self) -> "Worker":
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "worker", self.kind, *self.options],
            env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended: {self.process.stdout.read()}")
            try:
                self.get("ready")
                return self
            except OSError:
                time.sleep(0.1)
        self.process.kill()
        raise AssertionError(f"the worker was not ready in time: {self.process.stdout.read()}")

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
            return answer.read().decode()

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def stop(self) -> str:
        """SIGTERM; the worker must leave with 0 in time. Returns what it printed."""
        self.process.terminate()
        try:
            output, _ = self.process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise AssertionError("the worker did not stop in 30 s") from None
        assert self.process.returncode == 0, output
        return output

    def __exit__(self, kind, error, trace) -> None:
        if self.process.returncode is None:
            if kind is None:
                self.stop()
            else:
                self.process.kill()
                print(self.process.communicate()[0])
        self.process.stdout.close()


def collect(settings: Settings, wanted: dict[str, int], seconds: float = 60) -> dict[str, list]:
    """Records of topics, until there are as many of each as wanted; and all that come within a second after."""
    observer = Observer(settings, wanted)
    got: dict[str, list] = defaultdict(list)
    deadline = time.monotonic() + seconds
    quiet = None
    try:
        while time.monotonic() < deadline:
            for record in observer.poll(100):
                got[record.topic].append(record)
            if all(len(got[topic]) >= count for topic, count in wanted.items()):
                quiet = quiet or time.monotonic() + 1
                if time.monotonic() > quiet:
                    return got
        raise AssertionError(f"wanted {wanted}, got { {topic: len(records) for topic, records in got.items()} }")
    finally:
        observer.close()
