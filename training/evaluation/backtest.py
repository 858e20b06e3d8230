"""Backtests: what rules, thresholds and bundles would have decided on past transactions, and where two policies differ."""

from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
from msgspec import Struct, structs

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.privacy.masking import Privacy
from models.bundles.bundle import Bundle
from models.bundles.metrics import Measures
from models.features.columns import combined, label_columns
from models.features.engine import FeatureEngine
from models.policy import DECLINE
from models.scorer import OUTCOMES, Decider
from training.data.checks import check_file_suits_bundle
from training.data.dataset import LabelledReplay, column_labels, columns_of, compile_with_progress, known_labels, priced
from training.data.readers import TransactionFile, read_labels
from training.evaluation.measures import evaluate
from training.progress import Progress
from training.replay import text_of


class PolicyRun(Struct, frozen=True):
    """
    The decisions of a policy on n transactions.

    ``identities`` are hashes of the transactions' identities. ``held`` bool [n, R] says which of the R ``rules`` held.
    """

    name: str
    ids: list[str]
    identities: npt.NDArray[np.uint64]
    time: npt.NDArray[np.int64]
    amount: npt.NDArray[np.int64]
    outcome: npt.NDArray[np.int8]
    probability: npt.NDArray[np.float64]
    rules: tuple[str, ...]
    held: npt.NDArray[np.bool_]
    fraud: npt.NDArray[np.bool_]


def with_thresholds(bundle: Bundle, review: float | None, decline: float | None) -> Bundle:
    """
    Return the bundle with other thresholds.

    None keeps the bundle's threshold. If the kept decline threshold is below ``review``, it is raised to ``review``.

    Raises:
        InputError: unless 0 <= review <= decline.
    """
    policy = structs.replace(
        bundle.policy,
        review=bundle.policy.review if review is None else review,
        decline=max(bundle.policy.decline, review or 0.0) if decline is None else decline,
    )
    if not 0 <= policy.review <= policy.decline:  # NaN fails this check too
        raise InputError(f"thresholds must be 0 <= review <= decline: decline is {policy.decline:g}, review is {policy.review:g}")
    return structs.replace(bundle, policy=policy)


def run_policy(
    name: str,
    source: TransactionFile,
    labels: Path | None,
    decider: Decider,
    begin: int | None,
    privacy: Privacy,
    progress: Progress,
) -> PolicyRun:
    """
    Decide the transactions of a file from the time ``begin`` on (epoch ms; None for all).

    Earlier transactions only fill the feature windows.

    Raises:
        InputError: if the file cannot be used or has no transaction from ``begin`` on.
    """
    assert decider.bundle is not None
    spec = decider.bundle.spec
    reports = label_columns(read_labels(labels, privacy)) if labels else None
    if labels is None and not source.has_labels:
        raise InputError("no fraud labels: give --labels FILE, or a mapping with a [label] section")
    feed = LabelledReplay(FeatureEngine(spec), reports)
    compile_with_progress(spec, progress)
    progress.stage(name, 0)
    ids: list[str] = []
    parts: dict[str, list[Any]] = {
        key: [] for key in ("hash", "identity", "time", "amount", "outcome", "probability", "held", "fraud")
    }
    for chunk in source.chunks(65_536):
        columns = columns_of(chunk.table, spec)
        if reports is None and chunk.fraud is not None:
            feed.add_labels(column_labels(columns, chunk, source.label_delay_ms))
        X, duplicate, marks, _ = feed.update(columns)
        columns = columns.marked(marks)
        check_file_suits_bundle(columns, spec.currency, source.path)
        rows = np.flatnonzero(~duplicate if begin is None else ~duplicate & (columns.event_time >= begin))
        progress.advance(len(chunk.table))
        if len(rows) == 0:
            continue
        kept = chunk.table.take(pa.array(rows))
        scores = decider.decide(X[rows], columns.rows(rows), spec.feature_names, partial(text_of, kept))
        ids += kept["transaction_id"].to_pylist()
        found = (
            columns.transaction[rows], combined(columns.transaction, columns.content)[rows], columns.event_time[rows], priced(columns)[rows], scores.outcome, scores.probability, scores.held,
            chunk.fraud[rows] if chunk.fraud is not None else np.zeros(len(rows), np.bool_),
        )  # fmt: skip
        for key, values in zip(parts, found, strict=True):
            parts[key].append(values)
    if not ids:
        raise InputError(f"{source.path} contains no transaction to decide in that period")
    joined = {key: np.concatenate(values) for key, values in parts.items()}
    fraud = joined["fraud"] if reports is None else known_labels(joined["hash"], reports).final
    rules = decider.rules.ids if decider.rules else ()
    return PolicyRun(
        name,
        ids,
        joined["identity"],
        joined["time"],
        joined["amount"],
        joined["outcome"],
        joined["probability"],
        rules,
        joined["held"],
        fraud,
    )


class RuleResult(Struct, frozen=True):
    """The result of one rule in a backtest. ``amount_caught`` is the amount of the frauds that the rule hit, minor units."""

    rule: str
    hits: int
    precision: float | None
    frauds: int
    amount_caught: int


class PolicyResult(Struct, frozen=True):
    """
    The result of one policy over a period.

    ``money_caught`` is the amount of the flagged frauds, ``money_lost`` that of the other frauds, minor units of ``currency``.
    """

    policy: str
    currency: str
    measures: Measures
    declined: int
    money_caught: int
    money_lost: int
    analyst_hours_per_day: float
    rules: tuple[RuleResult, ...]

    def flat(self) -> dict[str, Any]:
        """Return the result as ``--json`` prints it: the measures are on the same level as the other figures."""
        own = msgspec.to_builtins(self)
        return {"policy": own.pop("policy"), **own.pop("measures"), **own}


def summary(played: PolicyRun, currency: str, minutes_per_alert: float) -> PolicyResult:
    """Return the results of a policy; amounts are in ``currency``."""
    days = _days(played)
    flagged = played.outcome > 0
    caught = int(played.amount[flagged & played.fraud].sum())
    by_rule = []
    for place, rule in enumerate(played.rules):
        held = played.held[:, place]
        frauds = int((held & played.fraud).sum())
        by_rule.append(
            RuleResult(
                rule=rule,
                hits=int(held.sum()),
                precision=round(frauds / int(held.sum()), 4) if held.any() else None,
                frauds=frauds,
                amount_caught=int(played.amount[held & played.fraud].sum()),
            )
        )
    return PolicyResult(
        policy=played.name,
        currency=currency,
        measures=evaluate(np.nan_to_num(played.probability, nan=1.0), flagged, played.fraud, played.amount, days),
        declined=int((played.outcome == DECLINE).sum()),
        money_caught=caught,
        money_lost=int(played.amount[played.fraud].sum()) - caught,
        analyst_hours_per_day=round(float(flagged.sum()) / days * minutes_per_alert / 60, 2),
        rules=tuple(by_rule),
    )


def differences(one: PolicyRun, other: PolicyRun) -> pa.Table:
    """Return the transactions that two policies decide differently, one row each, with their final labels."""
    place = {identity: row for row, identity in enumerate(other.identities.tolist())}
    pairs = [(row, place[identity]) for row, identity in enumerate(one.identities.tolist()) if identity in place]
    pairs = [(a, b) for a, b in pairs if one.outcome[a] != other.outcome[b]]
    left, right = np.array([a for a, _ in pairs], np.int64), np.array([b for _, b in pairs], np.int64)

    def hits(played: PolicyRun, rows: npt.NDArray[np.int64]) -> list[str]:
        return [" ".join(played.rules[rule] for rule in np.flatnonzero(played.held[row])) for row in rows]

    return pa.table(
        {
            "transaction_id": [one.ids[row] for row in left],
            "event_time": one.time[left],
            "amount": one.amount[left],
            "fraud": one.fraud[left],
            "outcome": [OUTCOMES[code].value for code in one.outcome[left].tolist()],
            "against_outcome": [OUTCOMES[code].value for code in other.outcome[right].tolist()],
            "probability": one.probability[left],
            "against_probability": other.probability[right],
            "rules": pa.array(hits(one, left), pa.string()),
            "against_rules": pa.array(hits(other, right), pa.string()),
        }
    )


class OutcomeChange(Struct, frozen=True, rename={"before": "from", "after": "to"}):
    """Transactions that move from one outcome to another; ``fraud_amount`` is the amount of their frauds, minor units."""

    before: str
    after: str
    transactions: int
    frauds: int
    fraud_amount: int


def outcome_changes(table: pa.Table) -> list[OutcomeChange]:
    """Count the rows of ``differences`` by the outcomes that they move between."""
    rows = table.select(["against_outcome", "outcome", "fraud", "amount"]).to_pandas()
    rows["fraud_amount"] = rows["amount"].where(rows["fraud"], 0)
    counted = rows.groupby(["against_outcome", "outcome"]).agg(
        transactions=("fraud", "size"), frauds=("fraud", "sum"), fraud_amount=("fraud_amount", "sum")
    )
    return [
        OutcomeChange(before, after, *map(int, counts))
        for (before, after), counts in zip(counted.index, counted.to_numpy(), strict=True)
    ]


def write_differences(table: pa.Table, path: Path) -> None:
    """
    Write the differences as CSV or Parquet, by the file's extension.

    Raises:
        InputError: for any other extension.
    """
    if path.suffix == ".parquet":
        pyarrow.parquet.write_table(table, path)
    elif path.suffix == ".csv":
        table.to_pandas().to_csv(path, index=False)
    else:
        raise InputError(f"--out {path}: give a file name that ends in .csv or .parquet")


def _days(played: PolicyRun) -> float:
    return max((int(played.time.max()) - int(played.time.min()) + 1) / MS_PER_DAY, 1 / 24)
