"""A real Prometheus on loopback that scrapes programs of a test, with whyflag's rules in fast motion."""

import json
import math
import re
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from cli.supervisor import free_ports
from monitoring.rules import rule_file

FASTER = 300  # a window of 5 minutes becomes the shortest one
WINDOWS = {"process_start_time_seconds": 90}  # seconds: a program cannot restart three times within six
SHORTEST = 5  # seconds: five scrapes
THRESHOLDS = {  # seconds in conditions, which are scaled, too: a fault is held for seconds, not for minutes
    "whyflag_lag_seconds": 100,
    "whyflag_checkpoint_age_seconds": 12,
    "whyflag_outbox_seconds": 100,
    "whyflag_silence_seconds": 5,  # workers ask Kafka every 5 seconds
}
_UNITS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}


def in_fast_motion(expression: str) -> str:
    """Divide the windows of an expression, and the thresholds that are waiting times."""
    window = next((seconds for metric, seconds in WINDOWS.items() if metric in expression), None)
    expression = re.sub(r"\[(\d+)([smhd])\]", lambda found: f"[{window or _shorter(found)}s]", expression)
    for metric, factor in THRESHOLDS.items():
        if metric in expression:
            expression = re.sub(r"> (\d+)$", lambda found, by=factor: f"> {int(found[1]) / by:g}", expression)
    return expression


def _shorter(found: re.Match[str]) -> int:
    return max(SHORTEST, _seconds(found[1] + found[2]) // FASTER)


def _seconds(duration: str) -> int:
    return int(duration[:-1]) * _UNITS[duration[-1]]


def rules_in_fast_motion() -> dict[str, Any]:
    content = rule_file()
    for group in content["groups"]:
        for rule in group["rules"]:
            rule["expr"] = in_fast_motion(rule["expr"])
            if "for" in rule:
                rule["for"] = f"{_seconds(rule['for']) // FASTER}s"
    return content


class Prometheus:
    """``with Prometheus(program, folder, ports)``: scrapes the ports every second."""

    def __init__(self, program: str, folder: Path, ports: Iterable[int]) -> None:
        (self.port,) = free_ports(1)
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules_in_fast_motion()))
        targets = [{"targets": [f"127.0.0.1:{port}" for port in ports]}]
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "whyflag", "static_configs": targets}],
        }
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        self._command = [
            program, f"--config.file={folder}/prometheus.yaml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{self.port}",
        ]  # fmt: skip
        self._log = folder / "prometheus.log"

    def __enter__(self) -> "Prometheus":
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=subprocess.STDOUT)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait(30)

    def get(self, path: str, **query: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return json.load(answer)["data"]

    def numbers(self, expression: str) -> list[float]:
        """Return the values of an expression now; a division of nothing by nothing is no number."""
        values = [float(series["value"][1]) for series in self.get("query", query=expression)["result"]]
        return [value for value in values if not math.isnan(value)]

    def firing(self) -> set[str]:
        return {one["labels"]["alertname"] for one in self.get("alerts")["alerts"] if one["state"] == "firing"}

    def wait_until_quiet(self, unwanted: set[str], seconds: float) -> None:
        """Wait until none of some alerts is firing."""
        deadline = time.monotonic() + seconds
        while firing := unwanted & self.firing():
            assert time.monotonic() < deadline, f"firing without a fault: {sorted(firing)}"
            time.sleep(0.5)

    def wait_for(self, wanted: set[str], seconds: float) -> None:
        """Wait until each wanted alert has been firing, not necessarily all at once."""
        deadline, seen = time.monotonic() + seconds, set()
        while not wanted <= (seen := seen | self.firing()):
            assert time.monotonic() < deadline, f"not firing: {sorted(wanted - seen)}; seen: {sorted(seen)}"
            time.sleep(0.5)
