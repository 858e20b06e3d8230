"""Logs: one JSON line per event, bound ids, masked data, and plain text on a terminal."""

import functools
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from core.metrics import VERSION
from tests.conftest import ROOT
from tests.hostile import EMAIL, PAN, SSN

PROGRAM = """
import asyncio, logging, sys, threading, warnings
from core.logs import bound, set_up_logs
from core.metrics import Program
from core.messages import Transaction
from core.settings import read_settings

transaction = Transaction("t1", 1, "c1", "m1", 100, "EUR", memo=sys.argv[1], merchant_name="Bar", device_id="d")
set_up_logs(Program.EXPLAIN, read_settings())
own, faust, library = (logging.getLogger(name) for name in ("streams.worker", "faust.app", "aiokafka.cluster"))
own.debug("detail")
own.info("paid %s", sys.argv[1])
faust.error("a line of Faust")
for _ in range(3):
    library.warning("Topic %s not found", "x")
library.info("not shown")

def work():
    own.warning("inside")

thread = threading.Thread(target=own.info, args=["from a thread"])
thread.start()
thread.join()

async def explain():
    with bound(alert_id="a1", transaction_id="t1"):
        await asyncio.to_thread(work)

asyncio.run(explain())
own.info("fields", extra={"memo": "Anna", "merchant_name": "Bar", "note": sys.argv[1], "count": 3, "text": sys.argv[1]})
class Shown:
    def __repr__(self):
        return sys.argv[1]

own.info("nested", extra={"items": [sys.argv[1], {"memo": "Anna"}], "object": Shown(), "by": {sys.argv[1]: 1}, "number": 4111111111111111,
                          "transaction": transaction})
try:
    raise ValueError(sys.argv[1])
except ValueError:
    own.exception("failed")
own.warning("after")
warnings.warn(sys.argv[1])
broken = threading.Thread(target=lambda: 1 / 0)
broken.start()
broken.join()
raise KeyError(sys.argv[1])
"""


@functools.cache
def logged(text="nothing", **settings):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | {f"WHYFLAG_{name.upper()}": value for name, value in settings.items()}
    done = subprocess.run([sys.executable, "-c", PROGRAM, text], capture_output=True, text=True, env=environment)
    assert (done.stdout, done.returncode) == ("", 1), "the program ends with an error that nobody handles"
    return done.stderr


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_json_with_time_level_logger_and_program():
    found = lines(logged())
    assert found[0]["event"] == f"whyflag {VERSION} started: explain"
    for line in found:
        assert {"event", "level", "logger", "timestamp", "program"} <= line.keys()
        assert line["program"] == "explain"
        assert re.fullmatch(r"[0-9-]{10}T[0-9:]{8}[.][0-9]{6}Z", line["timestamp"])
    assert "a line of Faust" in [line["event"] for line in found]


def test_ids_are_bound_inside_the_block_only_also_in_threads():
    by_event = {line["event"]: line for line in lines(logged())}
    assert (by_event["inside"]["alert_id"], by_event["inside"]["transaction_id"]) == ("a1", "t1")
    assert "alert_id" not in by_event["after"]


def test_levels_follow_the_setting_and_clients_do_not_repeat_themselves():
    events = [line["event"] for line in lines(logged())]
    assert "detail" not in events
    assert "not shown" not in events
    assert events.count("Topic x not found") == 1
    assert "detail" in [line["event"] for line in lines(logged(log_level="debug"))]
    assert "paid nothing" not in logged(log_level="error")


@pytest.mark.parametrize("canary", [PAN, EMAIL, SSN])
def test_no_form_of_log_holds_personal_data(canary):
    for form in ("json", "plain"):
        text = logged(f"card {canary} of a customer", log_format=form)
        assert canary not in text
        assert PAN not in text
        assert "failed" in text
        for private in ("Anna", "Bar", "memo", "merchant_name"):
            assert private not in text


def test_a_traceback_stays_on_its_line():
    (failed,) = [line for line in lines(logged("boom")) if line["event"] == "failed"]
    assert "ValueError: boom" in failed["exception"]
    assert "Traceback" in failed["exception"]


def test_errors_that_nobody_handles_and_warnings_are_lines_too():
    found = lines(logged("boom"))
    unexpected = [line for line in found if line["event"] == "an unexpected error"]
    assert ["ZeroDivisionError" in unexpected[0]["exception"], "KeyError: 'boom'" in unexpected[1]["exception"]] == [True, True]
    assert any("UserWarning: boom" in line["event"] for line in found)


def test_a_message_among_the_values_of_a_line_loses_its_private_fields():
    (nested,) = [line for line in lines(logged("boom")) if line["event"] == "nested"]
    assert nested["items"] == ["boom", {}]
    assert nested["transaction"]["transaction_id"] == "t1"
    assert "memo" not in nested["transaction"]


def test_a_file_has_no_escapes_and_a_terminal_shows_plain_text():
    assert "\x1b" not in logged(log_format="plain")
    parent, child = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm"}
    with subprocess.Popen([sys.executable, "-c", PROGRAM, "x"], stderr=child, env=environment):
        pass
    os.close(child)
    shown = os.read(parent, 100_000).decode()
    os.close(parent)
    assert "paid x" in shown
    assert not shown.lstrip().startswith("{")
