import json
import os
import subprocess
import sys
import time

import pytest

from core.errors import SettingsError
from core.settings import read_settings
from tests.conftest import ROOT


def _whyflag(*arguments, **environment):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("WHYFLAG_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=clean | environment,
        timeout=400,
    )


def test_help_lists_every_command_without_loading_anything_heavy():
    done = _whyflag("--help")
    assert done.returncode == 0
    for name in ("demo", "simulate", "train", "replay", "topics", "produce", "worker", "console", "schemas"):
        assert name in done.stdout
    code = "import sys, cli.main; print([m for m in ('numpy', 'pandas', 'xgboost', 'faust', 'sqlalchemy', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("arguments", "environment", "told"),
    [
        (["nope"], {}, "No such command"),
        (["simulate", "--out", "/dev/null/x"], {}, "/dev/null"),
        (["simulate", "--out", "x", "--transactions", "5"], {}, "--transactions"),
        (["train", "--transactions", "none.csv", "--out", "/tmp/nowhere"], {}, "no file none.csv"),
        (["train", "--transactions", "README.md", "--out", "/tmp/nowhere"], {}, ".csv, .parquet or .jsonl"),
        (["train", "--transactions", "x.csv", "--out", "/tmp/nowhere", "--spec", "x"], {}, "no feature spec"),
        (["train", "--transactions", "x.csv", "--out", "/tmp/nowhere", "--review-budget", "many"], {}, "review budget"),
        (["train", "--transactions", "x.csv", "--out", "/tmp/nowhere", "--label-delay", "soon"], {}, "--label-delay"),
        (["replay", "--bundle", "/tmp", "--transactions", "x.csv", "--out", "/tmp/nowhere"], {}, "whyflag train"),
        (["worker", "explain", "--bundle", "/tmp"], {}, "whyflag train"),
        (["topics", "create"], {"WHYFLAG_COLOUR": "red"}, "WHYFLAG_COLOUR is not a setting"),
        (["topics", "create"], {"WHYFLAG_METRICS_PORT": "many"}, "WHYFLAG_METRICS_PORT=many is invalid"),
        (["topics", "create"], {"WHYFLAG_PAN_KEY": "short"}, "at least 16 characters"),
        (["console"], {"WHYFLAG_DATABASE": "nonsense"}, "WHYFLAG_DATABASE"),
    ],
)
def test_a_wrong_command_prints_an_error_without_a_traceback(arguments, environment, told):
    done = _whyflag(*arguments, **environment)
    assert done.returncode != 0
    assert told in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_an_unreachable_broker_is_reported():
    done = _whyflag("topics", "create", WHYFLAG_KAFKA_BOOTSTRAP="127.0.0.1:1", WHYFLAG_KAFKA_API_VERSION="2.3")
    assert done.returncode == 1
    assert "127.0.0.1:1 does not answer" in done.stderr
    assert "Traceback" not in done.stderr


def test_simulate_train_and_replay_from_the_command_line(tmp_path):
    world, bundle = tmp_path / "world", tmp_path / "bundle"
    made = _whyflag("simulate", "--out", world, "--transactions", 20_000, "--days", 40, "--fraud-share", 0.02, "--format", "csv")
    assert made.returncode == 0, made.stderr
    files = ["--transactions", world / "transactions.csv", "--labels", world / "labels.csv"]
    trained = _whyflag("train", *files, "--review-budget", "20/day", "--label-delay", "5d", "--out", bundle, "--json")
    assert trained.returncode == 0, trained.stderr
    version = json.loads(trained.stdout)["bundle"]
    replayed = _whyflag("replay", "--bundle", bundle, *files, "--out", tmp_path / "out", "--json")
    assert replayed.returncode == 0, replayed.stderr
    summary = json.loads(replayed.stdout)
    assert summary["bundle"] == version
    assert summary["decided"] == summary["read"] == summary["approve"] + summary["review"] + summary["decline"]
    again = _whyflag("train", *files, "--out", bundle)
    assert again.returncode == 1
    assert "never overwritten" in again.stderr


@pytest.mark.slow
def test_the_demo_decides_and_explains_everything():
    done = _whyflag("demo", "--headless", "--duration", "12", "--json")
    assert done.returncode == 0, done.stderr
    totals = json.loads(done.stdout)
    assert set(totals) == {
        "produced", "decided", "dead_lettered", "approved", "reviewed", "declined", "alerts", "explained", "p50_ms", "p99_ms",
        "transactions_per_second",
    }  # fmt: skip
    assert totals["produced"] == totals["decided"] + totals["dead_lettered"]
    assert totals["dead_lettered"] >= 1
    assert totals["alerts"] == totals["explained"] == totals["reviewed"] + totals["declined"] > 0
    assert totals["p99_ms"] is not None


def test_no_tracked_file_contains_a_package_index_or_a_local_path():
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    forbidden = ("pypi" + ".org", "python" + "hosted", "/work" + "/main", "--index" + "-url", "--extra" + "-index")
    for name in tracked.stdout.splitlines():
        content = (ROOT / name).read_bytes().decode("utf-8", "replace")
        assert not [word for word in forbidden if word in content], name


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("WHYFLAG_KAFKA_BOOTSTRAPS", "x", "WHYFLAG_KAFKA_BOOTSTRAPS is not a setting: did you mean WHYFLAG_KAFKA_BOOTSTRAP?"),
        (
            "WHYFLAG_KAFKA_SECURITY",
            "TLS",
            "WHYFLAG_KAFKA_SECURITY=TLS is invalid: Invalid enum value 'TLS' (meaning: PLAINTEXT, SSL",
        ),
        ("WHYFLAG_METRICS_PORT", "abc", "WHYFLAG_METRICS_PORT=abc is invalid: Expected `int`, got `str` (meaning: port for"),
        ("WHYFLAG_ZZZ", "x", "WHYFLAG_ZZZ is not a setting: docs/reference/settings.md lists all of them"),
    ],
)
def test_an_error_of_a_setting_names_its_variable_and_meaning(variable, value, expected):
    with pytest.raises(SettingsError) as raised:
        read_settings({variable: value})
    assert expected in str(raised.value)


def test_an_error_of_a_secret_shows_no_value(monkeypatch):
    monkeypatch.setattr("core.settings.SECRETS", ("metrics_port",))  # a setting that can be wrong
    with pytest.raises(SettingsError) as raised:
        read_settings({"WHYFLAG_METRICS_PORT": "hidden-value"})
    assert "hidden-value" not in str(raised.value)


def test_a_pattern_that_the_shell_expanded_gets_a_hint():
    done = _whyflag("train", "--transactions", "a.csv", "b.csv", "c.csv", "--out", "x")
    assert done.returncode == 2
    assert "put it in quotes" in done.stderr


def test_a_worker_whose_bundle_cannot_be_loaded_exits_at_once(tmp_path):
    """Otherwise it would take partitions from workers that can score, and send all their transactions to review."""
    done = _whyflag("worker", "score", "--bundle", str(tmp_path / "typo"), WHYFLAG_KAFKA_BOOTSTRAP="127.0.0.1:1")
    assert done.returncode == 1
    assert "no model bundle in" in done.stderr
    assert "Traceback" not in done.stderr


def test_secrets_can_come_from_files_and_are_never_printed(tmp_path):
    (tmp_path / "key").write_text("a secret of enough length\n")
    read = read_settings(
        {
            "WHYFLAG_PAN_KEY_FILE": str(tmp_path / "key"),
            "WHYFLAG_KAFKA_PASSWORD": "hidden",
            "WHYFLAG_DATABASE": "postgresql://u:hidden@h/d",
        }
    )
    assert read.pan_key == "a secret of enough length"
    for shown in (repr(read), str(read), f"{read}"):
        assert "hidden" not in shown
        assert "a secret" not in shown
    with pytest.raises(SettingsError, match="both set"):
        read_settings({"WHYFLAG_PAN_KEY_FILE": str(tmp_path / "key"), "WHYFLAG_PAN_KEY": "x" * 20})
    with pytest.raises(SettingsError, match="cannot be read"):
        read_settings({"WHYFLAG_PAN_KEY_FILE": str(tmp_path / "none")})


def test_a_settings_error_does_not_reveal_the_secret():
    with pytest.raises(SettingsError) as told:
        read_settings({"WHYFLAG_PAN_KEY": "short-secret"})
    assert "short-secret" not in str(told.value)


def test_a_killed_demo_leaves_no_child():
    """Even a child that would not notice the death of its parent is ended."""
    code = (
        "import subprocess, time\nfrom cli.supervisor import _end_with_the_parent\n"
        "child = subprocess.Popen(['sleep', '60'], preexec_fn=_end_with_the_parent, start_new_session=True)\n"
        "print(child.pid, flush=True)\ntime.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        assert os.path.exists(f"/proc/{child}")
        parent.kill()
        parent.wait()
    deadline = time.monotonic() + 10
    while _alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(child)


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_acls_can_be_printed_for_every_role():
    from cli.operations.topics import command
    from streams.kafka.acls import Role

    (only,) = (option for option in command.commands["acls"].params if option.name == "only")
    assert set(only.type.choices) == {role.value for role in Role}
