"""The report: one self-contained page, whose numbers match the bundle's decisions."""

import re

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec import structs

from cli.main import whyflag
from core.errors import InputError
from core.privacy.masking import Privacy
from models.drift import SHIFTED, counted_with_score, stability
from tests.conftest import DAY, needs, transactions_file
from training.evaluation.measures import evaluate, score_file
from training.evaluation.report import SCORE, drift_of, read_typology
from training.progress import NoProgress

QUIET = NoProgress()


@pytest.fixture(scope="module")
def page(world, bundle_dir, tmp_path_factory) -> str:
    out = tmp_path_factory.mktemp("report") / "report.html"
    files = [
        "--transactions",
        world / "transactions.parquet",
        "--labels",
        world / "labels.parquet",
        "--truth",
        world / "truth.parquet",
    ]
    done = CliRunner().invoke(whyflag, ["report", "--bundle", str(bundle_dir), *map(str, files), "--out", str(out)])
    assert done.exit_code == 0, done.output
    return out.read_text()


def test_the_page_is_self_contained(page):
    assert not re.findall(r"<(?:script|link|iframe)", page)
    assert all(source.startswith("data:image/svg+xml;base64,") for source in re.findall(r'src="([^"]*)"', page))
    assert page.count("<img alt=") == 7
    for heading in (
        "Are the probabilities calibrated?",
        "Drift since calibration",
        "By typology",
        "By amount",
        "Model card",
        "Intended use",
    ):
        assert heading in page


def test_the_numbers_of_the_report_match_the_decisions(page, world, bundle, replayed):
    seen = score_file(transactions_file(world), world / "labels.parquet", bundle, Privacy(), QUIET)
    measured = evaluate(seen.scores.probability, seen.flagged, seen.fraud, seen.amount, seen.days)
    for name in ("transactions", "frauds", "alerts", "precision", "recall", "average_precision"):
        assert f"<dt>{name.replace('_', ' ')}</dt><dd>{getattr(measured, name):,}</dd>" in page
    # the decisions must match those of the stream
    from core.messages import decode_decision

    decided = {d.transaction_id: d for d in map(decode_decision, (replayed[0] / "decisions.jsonl").read_bytes().splitlines())}
    ids = seen.dataset.identities["transaction_id"].take(seen.rows).to_pylist()
    assert [decided[identity].probability for identity in ids] == seen.scores.probability.tolist()
    assert np.array_equal(np.array([decided[identity].outcome != "approve" for identity in ids]), seen.flagged)


def test_frauds_of_the_breakdowns_add_up(page, world, bundle):
    seen = score_file(transactions_file(world), world / "labels.parquet", bundle, Privacy(), QUIET)
    for title in ("By amount (EUR)", "By hour (UTC)", "By typology"):
        table = page.split(f"<h2>{title}</h2>")[1].split("</table>")[0]
        rows = re.findall(r"<tr><td>[^<]*</td><td>([\d,]+)</td><td>(\d+)</td>", table)
        assert sum(int(transactions.replace(",", "")) for transactions, _ in rows) == len(seen.rows)
        assert sum(int(frauds) for _, frauds in rows) == int(seen.fraud.sum())


def test_the_days_that_a_period_covers_are_no_drift(world, bundle):
    """Three days against three weeks: weekdays differ by the calendar alone."""
    seen = score_file(transactions_file(world), world / "labels.parquet", bundle, Privacy(), QUIET)
    time = seen.dataset.columns.event_time[seen.rows]
    few = time < time.min() + 3 * DAY
    short = structs.replace(seen, X=seen.X[few], scores=seen.scores.rows(few))
    index = stability(bundle.reference.shares, counted_with_score(short.X, short.scores.probability, bundle.reference.edges))
    assert dict(zip(bundle.spec.feature_names, index, strict=False))["weekday"] > SHIFTED, "it would be shown as a shift"
    names = {one.name for one in drift_of(bundle, short)}
    assert names == {*bundle.spec.feature_names, SCORE} - {"hour", "weekday", "weekend", "night"}


def test_an_invalid_truth_file_raises_an_input_error(tmp_path, world):
    with pytest.raises(InputError, match="typology"):
        read_typology(world / "labels.parquet")
    with pytest.raises(InputError, match="--truth"):
        read_typology(tmp_path / "none.parquet")


@pytest.mark.system
def test_a_browser_draws_every_chart(page, tmp_path):
    needs("chromium")
    from playwright.sync_api import sync_playwright

    path = tmp_path / "report.html"
    path.write_text(page)
    with sync_playwright() as playwright:
        import shutil

        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = browser.new_page()
        asked = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(f"file://{path}")
        widths = tab.eval_on_selector_all("img", "images => images.map(image => image.naturalWidth)")
        assert len(widths) == 7
        assert min(widths) > 100
        assert tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), "the page is wider than the window"
        browser.close()
    assert [url for url in asked if not url.startswith(("file://", "data:"))] == []
