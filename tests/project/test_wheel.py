"""The wheel: its content, and that it works in an empty environment away from the source."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import ROOT

PACKAGES = {"core", "models", "explain", "analyst", "training", "streams", "cli"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    build = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--wheel-dir",
        str(out),
        str(ROOT),
    ]
    subprocess.run(build, check=True, capture_output=True)
    (made,) = out.glob("*.whl")
    return made


def test_the_wheel_holds_our_packages_with_their_data_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == PACKAGES
    for wanted in (
        "training/data/mappings/sparkov.toml", "explain/prompts/narrative-3.txt", "explain/prompts/manifest.json", "explain/templates/evaluation.html", "analyst/web/templates/alert.html", "analyst/web/static/htmx.min.js", "analyst/web/words/de.ftl",
        "analyst/web/static/htmx.LICENSE", "analyst/migrations/versions/0001_queue.py", "explain/facts/categories.csv", "explain/facts/next_steps.toml", "explain/words/en.ftl", "explain/words/de.ftl", "explain/words/es.ftl",
    ):  # fmt: skip
        assert wanted in names
    assert not [name for name in names if "__pycache__" in name]


def _install(python, *what):
    """Install with uv, which is fast, or with pip if uv cannot reach the index that pip is configured for, like `make setup`."""
    uv = [Path(sys.executable).with_name("uv"), "pip", "install", "--quiet", "--python", python, "--no-deps", *what]
    if uv[0].exists() and subprocess.run(uv, capture_output=True).returncode == 0:
        return
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", *what]
    done = subprocess.run(pip, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_wheel_works_in_an_empty_environment(wheel, world, bundle_dir, tmp_path):
    environment = tmp_path / "empty"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", environment], check=True)
    _install(environment / "bin" / "python", "--require-hashes", "-r", ROOT / "requirements.lock")
    _install(environment / "bin" / "python", wheel)

    def whyflag(*arguments):
        command = [environment / "bin" / "whyflag", *arguments]
        return subprocess.run(
            command, check=True, capture_output=True, text=True, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}
        ).stdout

    assert "replay" in whyflag("--help")
    files = ["--transactions", world / "transactions.parquet", "--labels", world / "labels.parquet"]
    assert "decided" in whyflag("replay", "--bundle", bundle_dir, *files, "--out", tmp_path / "out")
    assert (tmp_path / "out" / "decisions.parquet").stat().st_size > 10_000
