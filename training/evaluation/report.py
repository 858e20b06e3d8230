"""
Report on a bundle: one self-contained HTML page with charts, on transactions that the bundle was not trained on.

The bundle scores exactly as in the stream. The report covers all transactions of the file from the start of the bundle's test
period on.
"""

import base64
import io
import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from markdown_it import MarkdownIt
from markupsafe import Markup
from matplotlib.figure import Figure

from core.clock import MS_PER_HOUR
from core.errors import InputError
from core.money import minor_per_major, money
from models.attribution import contributions
from models.bundles.bundle import CARD, Bundle
from models.calibration import reliability
from models.drift import SHIFTED, STABLE, counted_with_score, stability
from training.evaluation.measures import ScoredTransactions, evaluate
from training.progress import Progress

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
SCORE = "score"
_EXPLAINED = 2_000
_AMOUNT_BANDS = (0, 10, 25, 50, 100, 250, 500, 1_000)  # major units
_RED, _BLUE, _GREY, _GREEN = "#b3261e", "#1f5fa8", "#7a7f87", "#2e7d4f"


class Drift(NamedTuple):
    """How far a feature or the score has moved since calibration: its population stability index."""

    name: str
    stability: float


def drift_of(bundle: Bundle, seen: ScoredTransactions) -> list[Drift]:
    """
    Return the drift of each feature and of the score, largest first.

    Features of the calendar are left out: their distribution depends on which days a period covers.
    """
    index = stability(bundle.reference.shares, counted_with_score(seen.X, seen.scores.probability, bundle.reference.edges))
    names = (*bundle.spec.feature_names, SCORE)
    found = [Drift(*pair) for pair in zip(names, index.tolist(), strict=True) if pair[0] not in bundle.spec.calendar_features]
    return sorted(found, key=lambda drift: -drift.stability)


def report(bundle: Bundle, seen: ScoredTransactions, typology: Mapping[str, str], progress: Progress) -> str:
    """Return the report as an HTML page. ``typology`` maps transaction ids to their fraud typology, where it is known."""
    progress.stage("charts", 0)
    probability, fraud = seen.scores.probability, seen.fraud
    measured = evaluate(probability, seen.flagged, fraud, seen.amount, seen.days)
    drifted = drift_of(bundle, seen)
    gain = bundle.booster.get_score(importance_type="total_gain")
    sample = np.random.default_rng(0).choice(len(seen.X), min(_EXPLAINED, len(seen.X)), replace=False)
    shap = np.abs(contributions(bundle.booster, seen.X[np.sort(sample)])[0]).mean(axis=0)
    time = seen.dataset.columns.event_time[seen.rows]
    paid = seen.dataset.identities.take(pa.array(seen.rows))
    ids = paid["transaction_id"].to_pylist()
    kinds = [typology.get(identity) or "" for identity in ids]
    wrong = {
        "Frauds missed, highest amounts": np.flatnonzero(fraud & ~seen.flagged),
        "False alarms, highest probabilities": np.flatnonzero(~fraud & seen.flagged),
    }
    orders = (
        np.argsort(-seen.amount[wrong["Frauds missed, highest amounts"]]),
        np.argsort(-probability[wrong["False alarms, highest probabilities"]]),
    )
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("report.html").render(
        bundle=bundle,
        measured={name: "n/a" if value is None else f"{value:,}" for name, value in measured.shown().items()},
        period=(_minute(time.min()), _minute(time.max())),
        budget_plot=_budget_plot(seen, bundle),
        money_plot=_money_plot(seen, bundle),
        reliability_plot=_reliability_plot(probability, fraud),
        score_plot=_score_plot(probability, fraud, bundle.policy.review),
        drift_plot=_bars(
            [one.name for one in drifted[:15]],
            [one.stability for one in drifted[:15]],
            "population stability index",
            (STABLE, SHIFTED),
        ),
        gain_plot=_top(gain, "total gain"),
        shap_plot=_top(dict(zip(bundle.spec.feature_names, shap.tolist(), strict=True)), "mean |SHAP|, log-odds"),
        score_drift=next(one.stability for one in drifted if one.name == SCORE),
        verdict="stable" if drifted[0].stability < STABLE else "watch" if drifted[0].stability < SHIFTED else "shifted",
        breakdowns={
            f"By amount ({bundle.spec.currency})": _breakdown(seen, _bands(seen.amount, minor_per_major(bundle.spec.currency))),
            "By hour (UTC)": _breakdown(
                seen, [f"{hour:02d}–{hour + 2:02d}" for hour in (time // MS_PER_HOUR % 24 // 3 * 3).tolist()]
            ),
            **({"By typology": _breakdown(seen, kinds)} if any(kinds) else {}),
        },
        wrong={
            title: [
                {
                    "id": ids[i],
                    "time": _minute(time[i]),
                    "amount": money(paid["amount"][i].as_py(), paid["currency"][i].as_py()),
                    "probability": f"{probability[i]:.4f}",
                    "typology": kinds[i],
                }
                for i in rows[order[:10]].tolist()
            ]
            for (title, rows), order in zip(wrong.items(), orders, strict=True)
        },
        card=Markup(MarkdownIt("commonmark", {"html": False}).enable("table").render((bundle.folder / CARD).read_text())),  # noqa: S704  raw HTML is off
    )


def read_typology(path: Path | None) -> dict[str, str]:
    """
    Return fraud typologies by transaction id, from a Parquet file with ``transaction_id`` and ``typology``; empty without a file.

    Raises:
        InputError: if the file cannot be read or lacks these columns.
    """
    if path is None:
        return {}
    try:
        table = pq.read_table(path, columns=["transaction_id", "typology"])
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"--truth {path}: {str(error).splitlines()[0]}; give a Parquet file with the columns transaction_id and typology"
        ) from None
    return dict(zip(table["transaction_id"].to_pylist(), table["typology"].to_pylist(), strict=True))


def _svg(figure: Figure, alternative: str) -> Markup:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight", metadata={"Date": None})
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img alt="{}" src="data:image/svg+xml;base64,{}">').format(alternative, encoded)


def _axes(width: float = 6.4, height: float = 3.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    return figure, axes


def _curve(seen: ScoredTransactions) -> tuple[Floats, Floats, Floats, Floats]:
    """
    Return four curves over the number of alerts: alerts per day, precision, recall and share of the amount caught.

    The curves end at ten times the current number of alerts, but not before 100 alerts.
    """
    order = np.argsort(-seen.scores.probability, kind="stable")
    reach = min(len(order), max(10 * int(seen.flagged.sum()), 100))
    hits, count = np.cumsum(seen.fraud[order])[:reach], np.arange(1, reach + 1)
    caught = np.cumsum(np.where(seen.fraud, seen.amount, 0)[order])[:reach]
    lost = max(int(seen.amount[seen.fraud].sum()), 1)
    return count / seen.days, hits / count, hits / max(int(seen.fraud.sum()), 1), caught / lost


def _thinned(x: Floats, *ys: Floats) -> Iterable[Floats]:
    at = np.unique(np.geomspace(1, len(x), 400).astype(int)) - 1
    return (values[at] for values in (x, *ys))


def _budget_plot(seen: ScoredTransactions, bundle: Bundle) -> Markup:
    figure, axes = _axes()
    x, precision, recall = _thinned(*_curve(seen)[:3])
    axes.plot(x, precision, color=_BLUE, label="precision: alerts that were fraud")
    axes.plot(x, recall, color=_RED, label="recall: frauds that became alerts")
    axes.axvline(
        bundle.policy.alerts_per_day,
        color=_GREY,
        linestyle="--",
        linewidth=1,
        label=f"budget: {bundle.policy.alerts_per_day:g} per day",
    )
    axes.set(xscale="log", xlabel="alerts per day", ylabel="share", ylim=(0, 1.02))
    axes.legend(frameon=False, fontsize=8, loc="center left")
    return _svg(figure, "Precision and recall against alerts per day")


def _money_plot(seen: ScoredTransactions, bundle: Bundle) -> Markup:
    figure, axes = _axes()
    alerts, _, _, amount = _curve(seen)
    x, caught = _thinned(alerts, amount)
    axes.plot(x, caught, color=_GREEN)
    axes.axvline(bundle.policy.alerts_per_day, color=_GREY, linestyle="--", linewidth=1)
    axes.set(xscale="log", xlabel="alerts per day", ylabel="share of the fraudulent amount caught", ylim=(0, 1.02))
    return _svg(figure, "Amount caught against alerts per day")


def _reliability_plot(probability: Floats, fraud: Mask) -> Markup:
    figure, axes = _axes()
    bins = [part for part in reliability(probability, fraud) if part.count]
    means = [
        float(probability[(probability >= part.low) & (probability < (part.high if part.high < 1 else 2))].mean())
        for part in bins
    ]
    shares = np.array([part.frauds / part.count for part in bins])
    counts = np.array([part.count for part in bins])
    # Wilson score interval, 95 %
    z, n = 1.96, counts
    centre = (shares + z * z / (2 * n)) / (1 + z * z / n)
    half = z * np.sqrt(shares * (1 - shares) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1)
    axes.errorbar(
        means, shares, yerr=np.maximum([shares - centre + half, centre + half - shares], 0), fmt="o-", color=_BLUE, capsize=3
    )
    for x, y, count in zip(means, shares, counts, strict=True):
        axes.annotate(f"{count:,}", (x, y), textcoords="offset points", xytext=(6, -10), fontsize=7, color=_GREY)
    axes.set(xlabel="predicted probability", ylabel="observed share of fraud", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    return _svg(figure, "Reliability: predicted against observed, with counts and 95 % intervals")


def _score_plot(probability: Floats, fraud: Mask, review: float) -> Markup:
    figure, axes = _axes()
    edges = np.linspace(-12, 8, 60)
    logit = np.log(np.clip(probability, 1e-6, 1 - 1e-6) / np.clip(1 - probability, 1e-6, 1))
    axes.hist(logit[~fraud], edges, color=_BLUE, alpha=0.6, label="legitimate", density=True)
    axes.hist(logit[fraud], edges, color=_RED, alpha=0.6, label="fraud", density=True)
    if 0 < review < 1:
        axes.axvline(float(np.log(review / (1 - review))), color=_GREY, linestyle="--", linewidth=1, label="review threshold")
    axes.set(xlabel="log-odds of fraud", ylabel="density")
    axes.legend(frameon=False, fontsize=8)
    return _svg(figure, "Scores of legitimate and fraudulent transactions")


def _top(values: Mapping[str, Any], label: str) -> Markup:
    best = sorted(((name, float(value)) for name, value in values.items()), key=lambda pair: -pair[1])[:15]
    return _bars([name for name, _ in best], [value for _, value in best], label)


def _bars(names: list[str], values: list[float], label: str, marks: tuple[float, ...] = ()) -> Markup:
    figure, axes = _axes(6.4, 0.26 * max(len(names), 1) + 0.8)
    axes.barh(names[::-1], values[::-1], color=_BLUE)
    for mark in marks:
        axes.axvline(mark, color=_GREY, linestyle="--", linewidth=1)
    axes.tick_params(labelsize=8)
    axes.set_xlabel(label, fontsize=9)
    return _svg(figure, f"{label} by feature")


def _bands(amount: npt.NDArray[np.int64], major: int) -> list[str]:
    """Return the band of each amount. Bands are in major units; ``major`` is the number of minor units in a major unit."""
    edges = np.array(_AMOUNT_BANDS) * major
    names = [*(f"{low:,}–{high:,}" for low, high in itertools.pairwise(_AMOUNT_BANDS)), f"from {_AMOUNT_BANDS[-1]:,}"]
    return [names[place] for place in (np.searchsorted(edges, amount, side="right") - 1).tolist()]


def _breakdown(seen: ScoredTransactions, keys: list[str]) -> list[dict[str, Any]]:
    """Return for each group: transactions, frauds, share of frauds and of fraud amount caught, and false alarms."""
    names, place = np.unique(np.array(keys), return_inverse=True)
    rows = []
    for number, name in enumerate(names.tolist()):
        inside = place == number
        fraud = inside & seen.fraud
        lost = int(seen.amount[fraud].sum())
        caught = fraud & seen.flagged
        rows.append(
            {
                "name": name or "unknown",
                "transactions": f"{int(inside.sum()):,}",
                "frauds": int(fraud.sum()),
                "recall": caught.sum() / fraud.sum() if fraud.any() else None,
                "caught": seen.amount[caught].sum() / lost if lost else None,
                "false_alarms": int((inside & seen.flagged & ~seen.fraud).sum()),
            }
        )
    return sorted(rows, key=lambda row: _low(str(row["name"])))


def _low(name: str) -> tuple[float, str]:
    """Return the sort key of a group: ranges by their lower bound, then words."""
    digits = name.removeprefix("from ").split("–")[0].replace(",", "")
    return (float(digits), "") if digits.isdigit() else (float("inf"), name)


def _minute(time: Any) -> str:
    return str(np.datetime64(int(time), "ms"))[:16].replace("T", " ")
