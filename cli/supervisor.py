"""Start a long-running whyflag command as a child process, wait until it is ready, and stop it. The demo and the tests share it."""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path

from core.errors import ProcessError

READY_SECONDS = 90.0  # a worker compiles its kernels and reads its history before it is ready
STOP_SECONDS = 30.0  # a worker promises to stop within 25 s of SIGTERM
_POLL_SECONDS = 0.1
_LINES_SHOWN = 15
_LIBC = ctypes.CDLL(None)


def free_ports(count: int) -> list[int]:
    """Return loopback ports on which nothing listens at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]
    finally:
        for one in sockets:
            one.close()


class Child:
    """
    One ``whyflag`` command in a process of its own.

    Its output goes to the file ``log``: a pipe that nobody reads would block the process once it is full.
    """

    def __init__(self, arguments: Sequence[str], environment: Mapping[str, str], port: int, log: Path) -> None:
        """``port`` is the loopback port on which the command serves ``/ready``."""
        self.name = " ".join(arguments[:2])
        self.port, self.log = port, log
        self._arguments, self._environment = list(arguments), environment
        self.process: subprocess.Popen[bytes]

    def start(self, end_with_parent: bool = False) -> None:
        """
        Start the process in a session of its own, so that Ctrl-C reaches the parent only.

        With ``end_with_parent`` the kernel kills the child when the parent dies, even by ``kill -9`` (prctl(2), PR_SET_PDEATHSIG).
        A parent that already has threads must not use this option.
        """
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *self._arguments],
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_end_with_the_parent if end_with_parent else None,  # noqa: PLW1509 -- see the docstring
            )

    @property
    def running(self) -> bool:
        """Whether the process has been started and has not ended."""
        return hasattr(self, "process") and self.process.poll() is None

    def output(self) -> str:
        """Return everything that the process has printed."""
        return self.log.read_text(errors="replace")

    def _last_lines(self) -> str:
        return "\n".join(self.output().splitlines()[-_LINES_SHOWN:])

    def check(self) -> None:
        """
        Raise if the process has ended.

        Raises:
            ProcessError: with the last lines of its output.
        """
        if self.process.poll() is not None:
            raise ProcessError(f"`whyflag {self.name}` ended with status {self.process.returncode}:\n{self._last_lines()}")

    def get(self, path: str) -> str:
        """Return the body of an HTTP page that the process serves."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}", timeout=5) as answer:
            body: str = answer.read().decode()
        return body

    def wait_ready(self, seconds: float = READY_SECONDS) -> None:
        """
        Return when ``/ready`` answers with success.

        Raises:
            ProcessError: if the process ends or is not ready in time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.check()
            with contextlib.suppress(OSError, urllib.error.URLError):
                self.get("ready")
                return
            time.sleep(_POLL_SECONDS)
        raise ProcessError(f"`whyflag {self.name}` was not ready after {seconds:.0f} s:\n{self._last_lines()}")

    def stop(self, seconds: float = STOP_SECONDS) -> int:
        """Send SIGTERM, wait, and return the exit status; kill the process if it does not stop in time."""
        self.process.terminate()
        try:
            return self.process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise

    def kill(self) -> None:
        """Send SIGKILL and wait."""
        self.process.kill()
        self.process.wait()

    def send(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)


def _end_with_the_parent() -> None:
    _LIBC.prctl(1, signal.SIGKILL)


def whyflag_environment(settings: Mapping[str, str]) -> dict[str, str]:
    """Return this process's environment with its ``WHYFLAG_`` variables replaced by ``settings``."""
    return {name: value for name, value in os.environ.items() if not name.startswith("WHYFLAG_")} | dict(settings)
