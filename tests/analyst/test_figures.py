"""The leads' figures and the link graph against plain counts, on SQLite and PostgreSQL."""

import random
from collections import Counter

import pytest
from sqlalchemy import insert, select, update

from analyst.graph import MOST_NODES, Node, link_graph
from analyst.pictures import draw_links
from analyst.policy import Severity
from analyst.proposals import ListKey
from analyst.statistics import Statistics
from analyst.tables import alert_rules, alerts
from analyst.verdicts import Verdicts
from analyst.web.alert_view import Table
from analyst.web.leads_view import csv_of
from analyst.web.rendering import console_writer
from core.clock import MS_PER_DAY, MS_PER_HOUR
from core.errors import AccessError
from core.messages import Finding, Opinion
from models.bundles.metrics import ThresholdMeasures
from tests.analyst.conftest import ANN, LEA, console, ids_of
from tests.analyst.test_listing import NOW, made_row


@pytest.fixture
def rows():
    rng, made = random.Random(5), []
    for number in range(400):
        row = made_row(rng, number)
        if row["state"] == "closed":
            row["closed_at"] = min(row["raised_at"] + rng.randrange(1, 30) * MS_PER_HOUR, NOW)
            row["closed_by"] = rng.choice(["ann", "bob"])
        made.append(row | {"deadline": row["raised_at"] + 4 * MS_PER_HOUR + 60_000})
    return made


@pytest.fixture
def filled(empty_queue, rows):
    with empty_queue.engine.begin() as connection:
        connection.execute(insert(alerts), rows)
        connection.execute(
            insert(alert_rules), [{"alert_id": row["alert_id"], "rule": f"r{int(row['alert_id'][3:]) % 3}"} for row in rows[::2]]
        )
    empty_queue.clock.now = NOW
    return empty_queue


def test_the_report_equals_plain_counts(filled, rows):
    report = Statistics(filled).report(LEA, 30)
    closed = [row for row in rows if row["state"] == "closed" and row["closed_at"] >= (NOW // MS_PER_DAY - 29) * MS_PER_DAY]
    waiting = [row for row in rows if row["state"] != "closed"]
    for one in report.backlog:
        mine = [row for row in waiting if row["severity"] == one.severity]
        assert (one.open, one.escalated) == (
            sum(row["state"] == "open" for row in mine),
            sum(row["state"] == "escalated" for row in mine),
        )
        assert one.breached == sum(row["deadline"] < NOW for row in mine)
        assert one.oldest_hours == pytest.approx((NOW - min(row["raised_at"] for row in mine)) / MS_PER_HOUR, abs=0.01)
    raised, done = (
        Counter(row["raised_at"] // MS_PER_DAY for row in rows),
        Counter(row["closed_at"] // MS_PER_DAY for row in closed),
    )
    late = Counter(row["closed_at"] // MS_PER_DAY for row in closed if row["closed_at"] > row["deadline"])
    assert [(day.raised, day.closed, day.closed_late) for day in report.work] == [
        (raised[day.day // MS_PER_DAY], done[day.day // MS_PER_DAY], late[day.day // MS_PER_DAY]) for day in report.work
    ]
    assert len(report.work) == 30
    assert report.verdicts == Counter(row["finding"] for row in [*closed, *(row for row in rows if row["state"] == "escalated")])
    durations = sorted(row["closed_at"] - row["raised_at"] for row in closed)
    assert report.median_minutes == durations[(len(durations) - 1) // 2] / 60_000
    for found, key in ((report.by_theme, "theme"), (report.by_bundle, "bundle")):
        expected = Counter((row[key], row["finding"]) for row in closed if row[key])
        assert {one.name: (one.frauds, one.legitimate) for one in found} == {
            name: (expected[name, "fraud"], expected[name, "legitimate"]) for name in {row[key] for row in closed if row[key]}
        }
    held = Counter((f"r{int(row['alert_id'][3:]) % 3}", row["finding"]) for row in closed if int(row["alert_id"][3:]) % 2 == 0)
    assert {one.name: (one.frauds, one.legitimate) for one in report.by_rule} == {
        name: (held[name, "fraud"], held[name, "legitimate"]) for name in {key for key, _ in held}
    }
    assert {one.name: (one.verdicts, one.frauds) for one in report.people} == {
        name: (
            sum(row["closed_by"] == name for row in closed),
            sum(row["closed_by"] == name and row["finding"] == "fraud" for row in closed),
        )
        for name in ("ann", "bob")
    }
    assert report.load.backlog == len(waiting)
    assert report.load.closed_per_day == pytest.approx(len(closed) / 30)


def test_an_empty_queue_has_a_report(empty_queue):
    report = Statistics(empty_queue).report(LEA, 7)
    assert (report.median_minutes, report.load.days_of_work, [one.open for one in report.backlog]) == (None, None, [0, 0, 0])
    assert [one.severity for one in report.backlog] == list(Severity)
    with pytest.raises(AccessError):
        Statistics(empty_queue).report(ANN, 7)


def test_the_leads_page_shows_the_backtest_and_gives_csv(sqlite_queue):
    for alert in ids_of(sqlite_queue)[:3]:
        Verdicts(sqlite_queue).give(alert, Opinion(Finding.FRAUD), ANN, 0)
    what_if = (ThresholdMeasures(0.75, 12.5, 0.5, 0.25, 0.4),)
    with console(sqlite_queue, what_if=lambda: what_if) as site:
        page = site("lea").get("/leads?days=7").text
        for part in ("backtest of the bundle", "75%", "12.5", "Verdicts by person", "<svg"):
            assert part in page
        answer = site("lea").get("/leads/people.csv?days=7")
        assert answer.text == "Person,Verdicts,Frauds found\r\nann,3,3\r\n"
        assert answer.headers["content-disposition"] == 'attachment; filename="whyflag-people.csv"'
        assert site("lea").get("/leads/nothing.csv").status_code == 404
        assert site("ann").get("/leads/people.csv").status_code == 403


def test_a_spreadsheet_takes_no_cell_for_a_formula():
    assert (
        csv_of(Table(["a"], [["=HYPERLINK(1)"], ["+1"], ["-1"], ["@x"], ['a"b'], ["5%"]]))
        == "a\r\n'=HYPERLINK(1)\r\n'+1\r\n'-1\r\n'@x\r\n\"a\"\"b\"\r\n5%\r\n"
    )


# -- the link graph ------------------------------------------------------------------------------------------------------------


def plain_graph(rows, centre, hops):
    """Breadth-first search over card-merchant and card-device pairs."""
    pairs = Counter()
    for row in rows:
        card = Node(ListKey.CARD, row["card_id"])
        pairs[card, Node(ListKey.MERCHANT, row["merchant_id"])] += 1
        if row["device_id"]:
            pairs[card, Node(ListKey.DEVICE, row["device_id"])] += 1
    distances, used = {centre: 0}, {}
    for hop in range(1, hops + 1):
        frontier = {node for node, distance in distances.items() if distance == hop - 1}
        for (card, other), count in pairs.items():
            if card in frontier or other in frontier:
                used[card, other] = count
                for node in (card, other):
                    distances.setdefault(node, hop)
    return distances, used


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("centre", [Node(ListKey.CARD, "card-3"), Node(ListKey.MERCHANT, "m_1%"), Node(ListKey.DEVICE, "d1")])
def test_the_graph_equals_a_plain_search(filled, rows, centre, hops):
    graph = link_graph(filled, centre, hops)
    distances, used = plain_graph(rows, centre, hops)
    assert graph.hops == distances
    assert {(link.card, link.other): link.alerts for link in graph.links} == used
    assert graph.hidden == 0


def test_a_large_graph_hides_the_nodes_with_the_fewest_alerts_and_counts_them(empty_queue):
    rng = random.Random(1)
    shared = {"merchant_id": "big", "device_id": None, "finding": None}
    rows = [made_row(rng, number) | shared | {"card_id": f"c{number % 300}"} for number in range(600)]
    with empty_queue.engine.begin() as connection:
        connection.execute(insert(alerts), rows)
        connection.execute(update(alerts).where(alerts.c.card_id == "c7").values(device_id="d7"))
    graph = link_graph(empty_queue, Node(ListKey.MERCHANT, "big"), 2)
    assert len(graph.hops) == MOST_NODES
    assert graph.hidden >= 300 - MOST_NODES + 1
    words = console_writer("en")
    drawn = draw_links(graph, dict.fromkeys(graph.hops, "/x"), words)
    assert drawn.count("<a href") == MOST_NODES
    assert drawn.count("<line") == len(graph.links)


def test_a_node_without_alerts_has_no_picture(empty_queue):
    graph = link_graph(empty_queue, Node(ListKey.CARD, "nobody"), 2)
    assert (graph.links, draw_links(graph, {}, console_writer("en"))) == ([], "")


def test_frauds_mark_links_and_nodes(queue):
    alert = ids_of(queue)[0]
    Verdicts(queue).give(alert, Opinion(Finding.FRAUD), ANN, 0)
    card = Node(ListKey.CARD, queue.get(alert).alert.transaction.card_id)
    graph = link_graph(queue, card, 1)
    with queue.reading() as connection:
        assert connection.execute(select(alerts.c.finding).where(alerts.c.alert_id == alert)).scalar() == "fraud"
    assert graph.frauds[card] == sum(one.finding is Finding.FRAUD for one in queue.of_card(card.value, 100))
    assert sum(link.frauds for link in graph.links) >= 1
