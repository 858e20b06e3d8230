"""Real workers against a real protocol: child processes of the command line, on the embedded broker or on Apache Kafka."""

import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from pathlib import Path

from cli.demo import free_ports
from core.settings import Settings
from streams.kafka.clients import Observer


class Worker:
    """``with Worker(...)``: a worker process, ready when the block begins and stopped by SIGTERM when it ends."""

    def __init__(
        self, kind: str, settings: Settings, *options: str, bundle: Path | None = None, database: str = "",
        environment: dict[str, str] | None = None, ready: bool = True,
    ) -> None:  # fmt: skip
        """With ``ready`` false the block begins at once."""
        self.kind, self.options, self._wait = kind, options, ready
        (self.port,) = free_ports(1)
        self._folder = tempfile.TemporaryDirectory(prefix="whyflag-worker-", ignore_cleanup_errors=True)
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("WHYFLAG_")} | {
            "WHYFLAG_KAFKA_BOOTSTRAP": settings.kafka_bootstrap,
            "WHYFLAG_KAFKA_API_VERSION": settings.kafka_api_version,
            "WHYFLAG_CHECKPOINTS": str(settings.checkpoints).lower(),
            "WHYFLAG_CHECKPOINT_SECONDS": str(settings.checkpoint_seconds),
            "WHYFLAG_SESSION_SECONDS": str(settings.session_seconds),
            "WHYFLAG_STALLED_SECONDS": str(settings.stalled_seconds),
            "WHYFLAG_MAX_POLL_RECORDS": str(settings.max_poll_records),
            "WHYFLAG_METRICS_PORT": str(self.port),
            "WHYFLAG_BUNDLE": str(bundle or "/no/bundle"),
            "WHYFLAG_CASEBOOK": f"{self._folder.name}/casebook",
            "WHYFLAG_LLM_URL": settings.llm_url,
            "WHYFLAG_LLM_MODEL": settings.llm_model,
            **{
                f"WHYFLAG_{name.upper()}": getattr(settings, name)
                for name in (
                    "kafka_security",
                    "kafka_ca",
                    "kafka_certificate",
                    "kafka_sasl",
                    "kafka_user",
                    "kafka_password",
                    "pan_key",
                )
            },
        }
        self.environment |= environment or {}
        if database:
            self.environment["WHYFLAG_DATABASE"] = database

    def __enter__(self) -> "Worker":
        self._printed = tempfile.TemporaryFile()  # a pipe that nobody reads would stop the worker when it is full
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "worker", self.kind, *self.options],
            env=self.environment, stdout=self._printed, stderr=subprocess.STDOUT,
        )  # fmt: skip
        if not self._wait:
            return self
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise AssertionError(f"the worker ended: {self.printed()}")
            try:
                self.get("ready")
                return self
            except OSError:
                time.sleep(0.1)
        self.kill()
        raise AssertionError(f"the worker was not ready in time: {self.printed()}")

    @property
    def memory(self) -> float:
        """Resident memory, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def printed(self) -> str:
        """All it has printed."""
        return os.pread(self._printed.fileno(), 1 << 24, 0).decode("utf-8", "replace")

    def ended(self, seconds: float = 60) -> tuple[int, str]:
        """Wait for its end: exit status and what it printed."""
        return self.process.wait(seconds), self.printed()

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
            return answer.read().decode()

    def kill(self) -> None:
        """``kill -9``."""
        self.process.kill()
        self.process.wait()

    def pause(self) -> None:
        """SIGSTOP."""
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> str:
        """SIGTERM; the worker must leave with 0 in time. Returns what it printed."""
        self.process.terminate()
        try:
            status, output = self.ended(30)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the worker did not stop in 30 s: {self.printed()}") from None
        assert status == 0, output
        return output

    def __exit__(self, kind, error, trace) -> None:
        if self.process.poll() is None:
            if kind is None:
                self.stop()
            else:
                self.kill()
                print(self.printed())
        self._printed.close()
        self._folder.cleanup()


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
