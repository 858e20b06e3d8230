"""Write the rule file, its tests and the dashboards. Run by ``make reference``."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from monitoring.dashboards import DASHBOARDS, dashboard_json
from monitoring.rules import RUNBOOK_URL, rule_file
from monitoring.scenarios import promtool_tests

HERE = Path(__file__).parent
NOTE = "# Made by `make reference` from the code; do not edit.\n"


def files(runbook_url: str = RUNBOOK_URL, labels: Mapping[str, str] | None = None) -> dict[Path, str]:
    """Return the content of each generated file. With ``labels``, rules and dashboards are those of one installation of several."""
    tests = {} if labels else promtool_tests(runbook_url)
    return {
        HERE / "rules.yaml": _yaml(rule_file(runbook_url, labels)),
        **{HERE / f"rules_test_{step}.yaml": _yaml(content) for step, content in tests.items()},
        **{HERE / "dashboards" / f"{name}.json": text for name, text in dashboard_texts(labels).items()},
    }


def dashboard_texts(labels: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the JSON of each dashboard by its name."""
    return {one.name: json.dumps(dashboard_json(one, labels or {}), indent=2, ensure_ascii=False) + "\n" for one in DASHBOARDS}


def _yaml(content: dict[str, Any]) -> str:
    return NOTE + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


def _label(text: str) -> tuple[str, str]:
    found = re.fullmatch(r"([a-zA-Z_]\w*)=([\w.-]+)", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is no label: write for example namespace=whyflag", param_hint="--label")
    return found[1], found[2]


@click.command()
@click.option("--runbook-url", default=RUNBOOK_URL, show_default=True, help="Address of a runbook; {page} stands for its name.")
@click.option(
    "--label",
    multiple=True,
    help="Label of this installation's series, such as namespace=whyflag; for several in one Prometheus.",
)
def main(runbook_url: str, label: tuple[str, ...]) -> None:
    """Write the rule file, its tests and the dashboards."""
    labels = dict(map(_label, label))
    for path, content in files(runbook_url, labels).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
