"""Write the rule file, its tests and the dashboards. Run by ``make reference``."""

import json
from pathlib import Path
from typing import Any

import click
import yaml

from monitoring.dashboards import DASHBOARDS, dashboard_json
from monitoring.rules import RUNBOOK_URL, rule_file
from monitoring.scenarios import promtool_tests

HERE = Path(__file__).parent
NOTE = "# Made by `make reference` from the code; do not edit.\n"


def files(runbook_url: str = RUNBOOK_URL) -> dict[Path, str]:
    """Return the content of each generated file."""
    return {
        HERE / "rules.yaml": _yaml(rule_file(runbook_url)),
        **{HERE / f"rules_test_{step}.yaml": _yaml(content) for step, content in promtool_tests(runbook_url).items()},
        **{HERE / "dashboards" / f"{name}.json": text for name, text in dashboard_texts().items()},
    }


def dashboard_texts() -> dict[str, str]:
    """Return the JSON of each dashboard by its name."""
    return {one.name: json.dumps(dashboard_json(one), indent=2, ensure_ascii=False) + "\n" for one in DASHBOARDS}


def _yaml(content: dict[str, Any]) -> str:
    return NOTE + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=1000)


@click.command()
@click.option("--runbook-url", default=RUNBOOK_URL, show_default=True, help="Address of a runbook; {page} stands for its name.")
def main(runbook_url: str) -> None:
    """Write the rule file, its tests and the dashboards."""
    for path, content in files(runbook_url).items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)


if __name__ == "__main__":
    main()
