"""The documentation: generated pages follow from the code, links hold, and commands that it names exist."""

import re
import subprocess
import sys

import pytest

from cli.main import COMMANDS
from docs.generate import pages
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


@pytest.mark.parametrize("path", pages(), ids=lambda path: path.name)
def test_a_generated_page_follows_from_the_code(path):
    assert path.read_text() == pages()[path], "run `make reference`"


def test_the_site_builds_and_its_links_hold(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--site-dir", str(tmp_path / "site")]
    built = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={"NO_MKDOCS_2_WARNING": "1", "PATH": "/usr/bin:/bin"}
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").exists()
    hosts = set(re.findall(r'(?:src|href)="https?://([^/"]+)', (tmp_path / "site" / "index.html").read_text()))
    assert hosts <= {"squidfunk.github.io"}, "the site must work offline"


@pytest.mark.parametrize("path", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"], ids=lambda path: path.name)
def test_links_from_the_root_hold(path):
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", path.read_text()):
        assert target.startswith("https://") or (ROOT / target).exists(), target


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_that_a_page_names_exists(path):
    text = path.read_text()
    code = re.findall(r"^```.*?^```", text, re.MULTILINE | re.DOTALL) + re.findall(r"`[^`\n]+`", text)
    for name in re.findall(r"\bwhyflag ([a-z]+)\b", "\n".join(code)):
        assert name in COMMANDS, name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 100


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_that_a_page_names_exists(path):
    named = re.findall(
        r"`((?:core|models|explain|analyst|training|streams|cli|monitoring|tests|docs|k8s|compose)/[\w./-]+\.\w+)`",
        path.read_text(),
    )
    missing = [name for name in named if not (ROOT / name).exists() and "NAME" not in name]
    assert missing == []


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_test_that_a_page_names_exists(path):
    """A name may be cut off after an underscore, with an ellipsis."""
    files = list((ROOT / "tests").rglob("test_*.py"))
    defined = {name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.MULTILINE)}
    named = {one or other for one, other in re.findall(r"`(test_\w+)…?`|::(test_\w+)", path.read_text())} - {
        file.stem for file in files
    }
    unknown = {name for name in named if not any(one == name or (name.endswith("_") and one.startswith(name)) for one in defined)}
    assert unknown == set()
