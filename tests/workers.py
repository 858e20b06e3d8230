"""Real workers over the real protocol: child processes of the command line, on the embedded broker or on Apache Kafka."""

import signal
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from cli.supervisor import Child, free_ports, whyflag_environment
from core.settings import Settings
from streams.kafka.clients import Observer

PASSED_ON = (
    "kafka_prefix",
    "kafka_security",
    "kafka_ca",
    "kafka_certificate",
    "kafka_sasl",
    "kafka_user",
    "kafka_password",
    "pan_key",
)


class Worker:
    """``with Worker(...)``: a worker process, ready when the block begins and stopped by SIGTERM when it ends."""

    def __init__(
        self, kind: str, settings: Settings, *options: str, bundle: Path | None = None, database: str = "",
        environment: dict[str, str] | None = None, ready: bool = True,
    ) -> None:  # fmt: skip
        """If ``ready`` is false, the block begins without waiting until the worker is ready."""
        self._wait = ready
        self._folder = tempfile.TemporaryDirectory(prefix="whyflag-worker-", ignore_cleanup_errors=True)
        (self.port,) = free_ports(1)
        self.environment = whyflag_environment(
            {
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
            }
            | {f"WHYFLAG_{name.upper()}": getattr(settings, name) for name in PASSED_ON}
            | (environment or {})
            | ({"WHYFLAG_DATABASE": database} if database else {})
        )
        self._child = Child(["worker", kind, *options], self.environment, self.port, Path(self._folder.name) / "log")

    def __enter__(self) -> "Worker":
        self._child.start()
        if self._wait:
            try:
                self._child.wait_ready()
            except BaseException:
                if self._child.running:
                    self.kill()
                raise
        return self

    @property
    def process(self) -> subprocess.Popen:
        return self._child.process

    @property
    def memory(self) -> float:
        """Resident memory, MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def printed(self) -> str:
        """Return everything that the worker has printed."""
        return self._child.output()

    def ended(self, seconds: float = 60) -> tuple[int, str]:
        """Wait until the worker exits; return its exit status and output."""
        return self.process.wait(seconds), self.printed()

    def get(self, path: str) -> str:
        return self._child.get(path)

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        self._child.kill()

    def pause(self) -> None:
        """Send SIGSTOP."""
        self._child.send(signal.SIGSTOP)

    def resume(self) -> None:
        """Send SIGCONT."""
        self._child.send(signal.SIGCONT)

    def stop(self) -> str:
        """Send SIGTERM and return the output; the worker must exit with status 0 within 30 s."""
        try:
            status = self._child.stop()
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the worker did not stop in time: {self.printed()}") from None
        assert status == 0, self.printed()
        return self.printed()

    def __exit__(self, kind, error, trace) -> None:
        if self._child.running and kind is None:
            self.stop()
        elif self._child.running:
            self.kill()
        if kind is not None:
            print(self.printed())
        self._folder.cleanup()


def collect(settings: Settings, wanted: dict[str, int], seconds: float = 60) -> dict[str, list]:
    """Collect records until each topic has as many as wanted, and for one more second; return them by topic."""
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
