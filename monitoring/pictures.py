"""Draw the dashboards as PNG files from a Prometheus server: ``python -m monitoring.pictures http://127.0.0.1:9090 docs/pictures``."""

import math
import re
import time
from pathlib import Path
from typing import Any, Final, NamedTuple

import click
import httpx
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from msgspec import Struct

from monitoring.dashboards import DASHBOARDS, INTERVAL, Dashboard, Kind, Panel, Unit

_COLUMNS: Final = 3
_STEPS: Final = 200  # points in a line


class Line(NamedTuple):
    """A series: its legend, times in minutes before now (negative) and values."""

    legend: str
    minutes: list[float]
    values: list[float]


class Source(Struct, frozen=True):
    """A Prometheus server and the time to show, in epoch seconds."""

    url: str
    end: float
    seconds: float
    interval: str

    def lines(self, panel: Panel) -> list[Line]:
        """Return the series of a panel; a query without data has none."""
        return [self._line(series, query.legend) for query in panel.queries for series in self._series(query.expression)]

    def _series(self, expression: str) -> list[dict[str, Any]]:
        asked = {
            "query": expression.replace(INTERVAL, self.interval),
            "start": f"{self.end - self.seconds:.3f}",
            "end": f"{self.end:.3f}",
            "step": f"{max(1.0, self.seconds / _STEPS):.3f}",
        }
        answer = httpx.get(f"{self.url}/api/v1/query_range", params=asked, timeout=30).raise_for_status()
        return answer.json()["data"]["result"]  # type: ignore[no-any-return]

    def _line(self, series: dict[str, Any], legend: str) -> Line:
        for name in re.findall(r"{{(\w+)}}", legend):
            legend = legend.replace(f"{{{{{name}}}}}", series["metric"].get(name, ""))
        minutes = [(float(at) - self.end) / 60 for at, _ in series["values"]]
        return Line(legend, minutes, [float(value) for _, value in series["values"]])


def draw(dashboard: Dashboard, source: Source) -> Figure:
    """Return a figure with all panels of a dashboard."""
    rows = math.ceil(len(dashboard.panels) / _COLUMNS)
    figure = Figure(figsize=(5 * _COLUMNS, 2.7 * rows), layout="constrained")
    axes = figure.subplots(rows, _COLUMNS, squeeze=False).flat
    for panel in dashboard.panels:
        _draw_panel(next(axes), panel, source.lines(panel), source.seconds / 60)
    for unused in axes:
        unused.set_axis_off()
    figure.suptitle(f"{dashboard.title}, last {source.seconds / 60:g} minutes")
    return figure


def _draw_panel(axes: Axes, panel: Panel, lines: list[Line], minutes: float) -> None:
    axes.set_title(panel.title, fontsize=10, loc="left")
    axes.set_xlim(-minutes, 0)
    axes.set_ylabel("" if panel.unit is Unit.NONE else panel.unit.name.lower().replace("_", " "), fontsize=7)
    for line in lines:
        axes.plot(line.minutes, line.values, linewidth=1.2, label=line.legend)
    finite = [value for line in lines for value in line.values if math.isfinite(value)]
    axes.set_ylim(0, 1.1 * max(finite, default=0) or 1)
    if not finite:
        axes.text(0.5, 0.5, "no data", transform=axes.transAxes, ha="center", color="grey")
    elif panel.kind is Kind.NUMBER:
        axes.text(0.5, 0.45, "  ".join(_shown(line.values[-1]) for line in lines), transform=axes.transAxes, fontsize=14)
    if len(lines) > 1:
        axes.legend(fontsize=6, loc="upper left", framealpha=0.6)


def _shown(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


@click.command()
@click.argument("url")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option("--minutes", default=15.0, show_default=True, help="Time to show, until now.")
@click.option("--interval", default="1m", show_default=True, help="Window of rates: four scrape intervals or more.")
def main(url: str, folder: Path, minutes: float, interval: str) -> None:
    """Draw all dashboards from the Prometheus server at URL into FOLDER."""
    source = Source(url.rstrip("/"), time.time(), 60 * minutes, interval)
    for dashboard in DASHBOARDS:
        draw(dashboard, source).savefig(folder / f"dashboard-{dashboard.name}.png", dpi=80)


if __name__ == "__main__":
    main()
