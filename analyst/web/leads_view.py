"""What the leads' page and its CSV files show."""

import csv
import io
from collections.abc import Iterable, Sequence

from msgspec import Struct

from analyst.pictures import draw_work
from analyst.statistics import Precision, Report
from analyst.web.alert_view import Table
from analyst.web.rendering import count, date, share, text
from core.messages import TYPOLOGIES, Finding, Unit, Value
from explain.words import Writer
from models.bundles.metrics import ThresholdMeasures
from models.features.ops import Theme


class LeadsView(Struct, frozen=True):
    """The leads' page. Each table can be downloaded as CSV."""

    days: int
    choices: list[tuple[int, str]]
    figures: list[tuple[str, str]]
    picture: str
    tables: list[tuple[str, str, Table]]


CHOICES = [7, 30, 90]


def leads_view(words: Writer, report: Report, what_if: Sequence[ThresholdMeasures]) -> LeadsView:
    """Return the page."""
    tables = tables_of(words, report, what_if)
    return LeadsView(
        days=report.days,
        choices=[(one, words.value(Value(Unit.SECONDS, one * 86_400))) for one in CHOICES],
        figures=_figures(words, report),
        picture=draw_work(report.work, words),
        tables=[(name, words.words(f"ui-table-{name}"), table) for name, table in tables.items()],
    )


def tables_of(words: Writer, report: Report, what_if: Sequence[ThresholdMeasures]) -> dict[str, Table]:
    """Return the tables of the page by name."""
    backlog = [
        [
            words.words(f"ui-severity-{one.severity.name.lower()}"),
            *(count(words, number) for number in (one.open, one.escalated, one.breached)),
            "–" if one.oldest_hours is None else words.value(Value(Unit.SECONDS, one.oldest_hours * 3600)),
        ]
        for one in report.backlog
    ]
    work = [
        [date(words, day.day), *(count(words, number) for number in (day.raised, day.closed, day.closed_late))]
        for day in report.work
    ]
    people = [[one.name, count(words, one.verdicts), count(words, one.frauds)] for one in report.people]
    thresholds = [
        [
            share(words, one.threshold), "–" if one.alerts_per_day is None else words.value(Value(Unit.NUMBER, one.alerts_per_day)),
            *(share(words, value) for value in (one.precision, one.recall, one.amount_caught)),
        ]
        for one in what_if
    ]  # fmt: skip
    found = {
        "backlog": _table(words, ("severity", "open-count", "escalated-count", "breached", "oldest"), backlog),
        "work": _table(words, ("day", "raised", "closed", "closed-late"), work),
        "themes": _precision(words, "theme", report.by_theme),
        "rules": _precision(words, "rule", report.by_rule),
        "bundles": _precision(words, "bundle", report.by_bundle),
        "people": _table(words, ("person", "verdicts", "frauds-found"), people),
        "thresholds": _table(words, ("threshold", "alerts-per-day", "precision", "recall", "amount-caught"), thresholds),
    }
    return {name: table for name, table in found.items() if table.rows}


def csv_of(table: Table) -> str:
    """Return a table as CSV. A text that a spreadsheet would take for a formula is preceded by an apostrophe."""
    out = io.StringIO()
    writer = csv.writer(out)
    writer.writerows([_harmless(cell) for cell in row] for row in [table.headings, *table.rows])
    return out.getvalue()


def _harmless(cell: str) -> str:
    return f"'{cell}" if cell[:1] in ("=", "+", "-", "@", "\t", "\r") else cell


def _table(words: Writer, names: Iterable[str], rows: list[list[str]]) -> Table:
    return Table([words.words(f"ui-column-{name}") for name in names], rows)


def _precision(words: Writer, name: str, found: list[Precision]) -> Table:
    rows = [
        [_named(words, name, one.name), count(words, one.frauds), count(words, one.legitimate), share(words, one.precision)]
        for one in found
    ]
    return _table(words, (name, "frauds", "legitimate", "precision"), rows)


def _named(words: Writer, name: str, value: str) -> str:
    if name == "theme" and value in [theme.value for theme in Theme]:
        return words.code(f"theme-{value}")
    return words.code(value) if value in TYPOLOGIES else value


def _figures(words: Writer, report: Report) -> list[tuple[str, str]]:
    load, minutes = report.load, report.median_minutes
    days = "–" if load.days_of_work is None else words.value(Value(Unit.DAYS, load.days_of_work))
    verdicts = words.words(
        "ui-verdict-mix",
        fraud=text(count(words, report.verdicts.get(Finding.FRAUD, 0))),
        legitimate=text(count(words, report.verdicts.get(Finding.LEGITIMATE, 0))),
        escalated=text(count(words, report.verdicts.get(Finding.ESCALATE, 0))),
    )
    return [
        (words.words("ui-figure-backlog"), count(words, load.backlog)),
        (words.words("ui-figure-breached"), count(words, sum(one.breached for one in report.backlog))),
        (words.words("ui-figure-raised"), words.value(Value(Unit.NUMBER, load.raised_per_day))),
        (words.words("ui-figure-closed"), words.value(Value(Unit.NUMBER, load.closed_per_day))),
        (words.words("ui-figure-days-of-work"), days),
        (words.words("ui-figure-median"), "–" if minutes is None else words.value(Value(Unit.SECONDS, minutes * 60))),
        (words.words("ui-figure-verdicts"), verdicts),
    ]
