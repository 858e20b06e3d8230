"""Alerts, objectives and dashboards: they use metrics that exist, each alert has a runbook and tests, and promtool accepts all of it."""

import re
import subprocess
from collections import Counter

import pytest
import yaml

from core.collectors import ArrayHistogram
from core.metrics import CATALOGUE
from monitoring.dashboards import DASHBOARDS, dashboard_json, panels
from monitoring.generate import files
from monitoring.objectives import OBJECTIVES, LatencyLimit, Severity
from monitoring.rules import RUNBOOK_URL, WINDOWS, alerts, recordings, rule_file, selecting
from monitoring.scenarios import SCENARIOS, promtool_tests
from tests.conftest import ROOT, needs

FOLDER = ROOT / "monitoring"
TEST_FILES = sorted(path.name for path in FOLDER.glob("rules_test_*.yaml"))


def _catalogue():
    """The labels of each series that programs serve."""
    labels = {}
    for entry in CATALOGUE:
        (family,) = entry.collector.describe()
        if family.type == "counter":
            labels[f"{family.name}_total"] = set(entry.labels)
        elif family.type == "histogram":
            labels[f"{family.name}_bucket"] = {*entry.labels, "le"}
            labels[f"{family.name}_count"] = labels[f"{family.name}_sum"] = set(entry.labels)
        else:
            labels[family.name] = set(entry.labels)
    return labels


SERVED = _catalogue()
KNOWN = (
    SERVED
    | {recording.name: {*recording.labels} for recording in recordings()}
    | {"up": set(), "process_start_time_seconds": set()}
)
KNOWN["whyflag:matured_alerts"] = {"fraud"}
SCRAPED = {"job", "instance"}  # labels that Prometheus adds
EXPRESSIONS = {
    **{f"{recording.name} {recording.labels}": recording.expression for recording in recordings()},
    **{alert.name: alert.expression for alert in alerts()},
    **{f"{query.dashboard}: {query.panel} {number}": query.expression for number, query in enumerate(panels())},
    **{
        f"{path.stem} {number}": line.split("#")[0]
        for path in sorted((ROOT / "docs" / "runbooks").glob("*.md"))
        for block in re.findall(r"```promql\n(.*?)```", path.read_text(), re.DOTALL)
        for number, line in enumerate(block.splitlines())
    },
    **{f"scenario {one.alert} {series}": series for one in SCENARIOS for series in one.series},
}


def _used(expression):
    """The metrics of an expression, each with the labels of its selector."""
    return [
        (name, set(re.findall(r"(\w+)(?==|!)", selector)))
        for name, selector in re.findall(r"(\bup\b|process_start_time_seconds|whyflag[:_][\w:]+)((?:\{[^}]*\})?)", expression)
    ]


@pytest.mark.parametrize("expression", EXPRESSIONS.values(), ids=EXPRESSIONS)
def test_every_metric_and_label_of_an_expression_exists(expression):
    used = _used(expression)
    assert used
    for name, labels in used:
        assert labels <= KNOWN[name] | SCRAPED, name
    grouped = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", expression) for label in group.split(",")}
    assert grouped <= set.union(SCRAPED, *(KNOWN[name] for name, _ in used))


def test_the_dashboards_show_every_metric():
    shown = {name for query in panels() for name, _ in _used(query.expression)}
    missing = [entry.collector for entry in CATALOGUE if not shown & {*_series(entry)}]
    assert missing == []


def _series(entry):
    (family,) = entry.collector.describe()
    return family.name, f"{family.name}_total", f"{family.name}_bucket"


def test_a_latency_objective_uses_a_bound_of_its_histogram():
    histograms = {
        family.name: family
        for entry in CATALOGUE
        if isinstance(entry.collector, ArrayHistogram)
        for family in entry.collector.collect()
    }
    limits = [one.indicator for one in OBJECTIVES if isinstance(one.indicator, LatencyLimit)]
    assert limits
    for limit in limits:
        bounds = [sample.labels["le"] for sample in histograms[limit.histogram].samples if "le" in sample.labels]
        assert limit.seconds in map(float, bounds)
        used = re.search(r'le(=~?)"([^"]+)"', limit.error_ratio("5m"))
        written = f"{limit.seconds:g}"
        assert written in bounds
        # Prometheus 3 stores the bound as a float
        for stored in (written, str(float(limit.seconds))):
            assert stored == used[2] if used[1] == "=" else re.fullmatch(used[2], stored)


def test_each_objective_has_all_windows_and_two_alerts():
    names = Counter((recording.name, recording.labels.get("objective")) for recording in recordings())
    assert max(names.values()) == 1
    by_name = {alert.name: alert for alert in alerts()}
    for objective in OBJECTIVES:
        assert all(names[f"whyflag:errors:ratio_rate{window}", objective.name] for window in WINDOWS)
        assert by_name[f"{objective.runbook}Fast"].severity is objective.severity
        assert by_name[f"{objective.runbook}Slow"].severity is Severity.TICKET


@pytest.mark.parametrize("alert", alerts(), ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_and_tests(alert):
    assert re.fullmatch(r"Whyflag([A-Z][a-z]+)+", alert.name)
    assert alert.summary
    assert "{{ $" in alert.description
    page = (ROOT / "docs" / "runbooks" / f"{alert.page}.md").read_text()
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["Meaning", "Impact", "Diagnosis", "Mitigation"]
    assert page.startswith(f"# {alert.runbook or alert.name}\n")
    assert len(page.splitlines()) <= 40
    assert f"- runbooks/{alert.runbook or alert.name}.md" in (ROOT / "mkdocs.yml").read_text()
    checks = [
        (test["name"], bool(check["exp_alerts"]))
        for content in promtool_tests().values()
        for test in content["tests"]
        for check in test["alert_rule_test"]
        if check["alertname"] == alert.name
    ]
    assert [firing for name, firing in checks if name == f"{alert.name} fires and recovers"][:3] == [False, True, False]
    assert len(checks) >= 5


def test_every_runbook_belongs_to_an_alert():
    pages = {f"runbooks/{path.name}" for path in (ROOT / "docs" / "runbooks").glob("*.md")}
    assert pages == {*(f"runbooks/{one.page}.md" for one in alerts()), "runbooks/index.md"}


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_a_generated_file_follows_from_the_code(path):
    assert path.read_text() == files()[path], "run `make reference`"


def test_no_generated_file_is_left_over():
    assert {*FOLDER.glob("*.yaml"), *(FOLDER / "dashboards").glob("*")} == {*files()}


@pytest.mark.parametrize("dashboard", DASHBOARDS, ids=lambda dashboard: dashboard.name)
def test_a_dashboard_uses_the_chosen_data_source_and_does_not_overlap(dashboard):
    content = dashboard_json(dashboard)
    assert [variable["type"] for variable in content["templating"]["list"]] == ["datasource"]
    cells = Counter()
    for panel in content["panels"]:
        assert panel["datasource"]["uid"] == "${datasource}"
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"]
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells.update((place["x"] + dx, place["y"] + dy) for dx in range(place["w"]) for dy in range(place["h"]))
    assert max(cells.values()) == 1


def test_links_to_runbooks_begin_with_the_given_address():
    rules = [rule for rule in rule_file("https://docs.test/{page}")["groups"][0]["rules"] if "alert" in rule]
    assert {rule["annotations"]["runbook_url"] for rule in rules} == {f"https://docs.test/{one.page}" for one in alerts()}


@pytest.mark.system
def test_promtool_accepts_the_rules():
    done = subprocess.run([needs("promtool"), "check", "rules", "rules.yaml"], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
@pytest.mark.parametrize("name", TEST_FILES)
def test_alerts_fire_and_recover(name):
    done = subprocess.run([needs("promtool"), "test", "rules", name], cwd=FOLDER, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
def test_promtool_accepts_every_expression_of_dashboards_and_runbooks(tmp_path):
    rules = [{"record": f"checked:{number}", "expr": one} for number, one in enumerate(EXPRESSIONS.values())]
    path = tmp_path / "expressions.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "checked", "rules": rules}]}))
    done = subprocess.run([needs("promtool"), "check", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_series_of_an_installation_s_rules_and_dashboards_is_selected():
    labels = {"namespace": "shop"}
    for rule in rule_file(labels=labels)["groups"][0]["rules"]:
        assert rule["labels"]["namespace"] == "shop"
        assert all("namespace" in used for _, used in _used(rule["expr"])), rule["expr"]
    for query in panels():
        assert all("namespace" in used for _, used in _used(selecting(query.expression, labels))), query.expression
    assert selecting("up", {}) == "up"


@pytest.mark.system
def test_another_installation_does_not_hide_a_fault(tmp_path):
    (tmp_path / "rules.yaml").write_text(yaml.safe_dump(rule_file(labels={"namespace": "shop"})))
    absent = {"alertname": "WhyflagProgramAbsent", "eval_time": "20m"}
    firing = {"exp_labels": {"severity": "page", "namespace": "shop", "program": "score"}}
    series = [
        {"series": f'whyflag_build_info{{program="{program}",namespace="{namespace}"}}', "values": "1x30"}
        for namespace in ("shop", "other")
        for program in ("score", "explain", "archive", "console")
        if (namespace, program) != ("shop", "score")
    ]
    alert = next(one for one in alerts() if one.name == "WhyflagProgramAbsent")
    firing["exp_annotations"] = {
        "summary": alert.summary,
        "description": "No instance of the program score serves metrics.",
        "runbook_url": RUNBOOK_URL.format(page=alert.page),
    }
    test = {"interval": "1m", "input_series": series, "alert_rule_test": [absent | {"exp_alerts": [firing]}]}
    content = {"rule_files": ["rules.yaml"], "evaluation_interval": "1m", "tests": [test]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump(content))
    done = subprocess.run([needs("promtool"), "test", "rules", "test.yaml"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
