"""Replay of a transaction file without Kafka, with the same feature engine, scorer and policy as the stream."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet
from msgspec import Struct

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.messages import Alert, Outcome, Transaction, encode
from core.privacy.masking import Privacy
from models.bundles.bundle import Bundle, check_empty
from models.bundles.metrics import Measures
from models.features.columns import label_columns, recent_transactions
from models.features.engine import RECENT, FeatureEngine
from models.policy import APPROVE, DECLINE, REVIEW
from models.scorer import OUTCOMES, Decider, Scores, alert, decisions, expected_losses, payments, reason_codes
from training.data.checks import check_file_suits_bundle
from training.data.conform import SCHEMA
from training.data.dataset import LabelledReplay, column_labels, columns_of, known_labels, priced
from training.data.readers import TransactionFile, messages_of, read_labels
from training.evaluation.measures import evaluate
from training.progress import Advance

_DECISION_SCHEMA = pa.schema(
    [
        ("transaction_id", pa.string()), ("card_id", pa.string()), ("merchant_id", pa.string()), ("event_time", pa.int64()),
        ("amount", pa.int64()), ("currency", pa.string()), ("outcome", pa.string()), ("probability", pa.float64()),
        ("bundle", pa.string()), ("reason_codes", pa.list_(pa.string())), ("rule_hits", pa.list_(pa.string())),
        ("expected_loss", pa.int64()), ("novelty", pa.float64()),
    ]
)  # fmt: skip


_ALERTS_AT_ONCE = 2_000


class ReplaySummary(Struct, frozen=True):
    """The result of a replay. ``days`` is the time that the transactions span; ``quality`` is None without labels."""

    read: int
    rejected: int
    duplicates: int
    decided: int
    outcomes: dict[Outcome, int]
    novel: int
    days: float
    alerts_per_day: float
    bundle: str
    quality: Measures | None = None

    def shown(self) -> dict[str, int | float | str | None]:
        """Return all figures in one flat dictionary, for printing and for JSON."""
        names = ("read", "rejected", "duplicates", "decided")
        flat: dict[str, int | float | str | None] = {name: getattr(self, name) for name in names}
        flat |= {outcome.value: count for outcome, count in self.outcomes.items()}
        flat |= {name: getattr(self, name) for name in ("novel", "days", "alerts_per_day", "bundle")}
        if self.quality is not None:
            measures = ("frauds", "precision", "recall", "average_precision", "auc", "amount_caught")
            flat |= {name: getattr(self.quality, name) for name in measures}
        return flat


def _alert_schema(names: tuple[str, ...]) -> pa.Schema:
    """Return the schema of the alerts table, nested like the alert messages."""
    past = [
        ("event_time", pa.int64()), ("amount", pa.int64()), ("mcc", pa.string()), ("country", pa.string()), ("channel", pa.string()),
        ("same_merchant", pa.bool_()),
    ]  # fmt: skip
    return pa.schema(
        [
            ("alert_id", pa.string()),
            ("transaction", pa.struct(list(SCHEMA))),
            ("decision", pa.struct(list(_DECISION_SCHEMA))),
            ("features", pa.struct([(name, pa.float64()) for name in names])),
            ("spec", pa.string()),
            ("recent", pa.list_(pa.struct(past))),
            ("currency", pa.string()),
        ]
    )


def transactions_of(source: TransactionFile, rows: int = 2_048) -> Iterator[Transaction]:
    """Yield every usable transaction of a file as a message."""
    for chunk in source.chunks(rows):
        yield from messages_of(chunk.table)


class _Writer:
    """Writer of decisions and alerts to a folder, as Parquet or JSON Lines. Files get their final names once complete."""

    def __init__(self, out: Path, form: str, names: tuple[str, ...]) -> None:
        """Open the partial files. ``names`` are the names of the features in an alert."""
        self._form, self._out = form, out
        out.mkdir(parents=True, exist_ok=True)
        if form == "parquet":
            self._table = pyarrow.parquet.ParquetWriter(self._partial("decisions"), _DECISION_SCHEMA)
            self._alert_schema = _alert_schema(names)
            self._alert_table = pyarrow.parquet.ParquetWriter(self._partial("alerts"), self._alert_schema)
            self._raised: list[dict[str, Any]] = []
        else:
            self._lines, self._alerts = self._partial("decisions").open("wb"), self._partial("alerts").open("wb")

    def _partial(self, name: str) -> Path:
        return self._out / f".{name}.{self._form}.partial"

    def decisions(self, table: pa.Table, scores: Scores, rows: npt.NDArray[np.int64]) -> None:
        """Write the decisions on ``rows`` of a table. ``scores`` has one entry for each of these rows, in the same order."""
        if self._form == "jsonl":
            transactions = list(messages_of(table.take(pa.array(rows))))
            self._lines.writelines(encode(decided) + b"\n" for decided in decisions(payments(transactions), scores))
            return
        taken = table if len(rows) == len(table) else table.take(pa.array(rows))
        amounts = taken["amount"].to_numpy()
        self._table.write_table(
            pa.table(
                [
                    *(taken[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time", "amount", "currency")),
                    pa.array([OUTCOMES[code] for code in scores.outcome.tolist()], pa.string()),
                    pa.array(scores.probability),
                    pa.array([scores.bundle] * len(rows)),
                    pa.array([list(reason_codes(scores, i)) for i in range(len(rows))], pa.list_(pa.string())),
                    pa.array([list(scores.hits(i)) for i in range(len(rows))], pa.list_(pa.string())),
                    pa.array(expected_losses(scores.probability, amounts)),
                    pa.array(scores.novelty.round(6)),
                ],
                schema=_DECISION_SCHEMA,
            )
        )

    def alert(self, raised: Alert) -> None:
        """Write one alert."""
        if self._form == "parquet":
            self._raised.append(msgspec.to_builtins(raised))
            if len(self._raised) == _ALERTS_AT_ONCE:
                self._write_alerts()
        else:
            self._alerts.write(encode(raised) + b"\n")

    def _write_alerts(self) -> None:
        self._alert_table.write_table(pa.Table.from_pylist(self._raised, self._alert_schema))
        self._raised.clear()

    def close(self, complete: bool) -> None:
        """Close all files. Give them their final names if ``complete``, else delete them."""
        if self._form == "parquet":
            self._write_alerts()
            self._table.close()
            self._alert_table.close()
        else:
            self._lines.close()
            self._alerts.close()
        for name in ("decisions", "alerts"):
            if complete:
                self._partial(name).replace(self._out / f"{name}.{self._form}")
            else:
                self._partial(name).unlink(missing_ok=True)


def text_of(table: pa.Table, name: str) -> list[str | None]:
    """Return a text column of a table as a list."""
    column: list[str | None] = table[name].to_pylist()
    return column


def _rules(path: Path | None, features: tuple[str, ...]) -> Any:
    if path is None:
        return None
    from models.rules import load_rules  # Polars is loaded only if there are rules

    return load_rules(path, features)


def replay(
    source: TransactionFile, bundle: Bundle, *, labels: Path | None, out: Path, form: str, privacy: Privacy, progress: Advance,
    batch: int = 65_536, rules: Path | None = None,
) -> ReplaySummary:  # fmt: skip
    """
    Decide every transaction of a file in file order, write the files ``decisions`` and ``alerts``, and return a summary.

    ``form`` is ``parquet`` or ``jsonl``. Existing files in ``out`` are replaced only when the new files are complete.

    Raises:
        InputError: if the file cannot be used.
    """
    check_empty(out)
    spec = bundle.spec
    decider = Decider(bundle, _rules(rules, spec.feature_names))
    reports = label_columns(read_labels(labels, privacy)) if labels else None
    feed = LabelledReplay(FeatureEngine(spec), reports)
    writer = _Writer(out, form, spec.feature_names)
    names = spec.feature_names
    counts = {APPROVE: 0, REVIEW: 0, DECLINE: 0}
    seen: dict[str, list[npt.NDArray[Any]]] = {"hash": [], "p": [], "flagged": [], "amount": [], "fraud": [], "time": []}
    duplicates = novel = 0
    try:
        for chunk in source.chunks(batch):
            columns = columns_of(chunk.table, spec)
            if reports is None and chunk.fraud is not None:
                feed.add_labels(column_labels(columns, chunk, source.label_delay_ms))
            X, duplicate, marks, recent = feed.update(columns, RECENT)
            columns = columns.marked(marks)
            check_file_suits_bundle(columns, spec.currency, source.path)
            rows = np.flatnonzero(~duplicate)
            duplicates += int(duplicate.sum())
            if len(rows):
                kept = chunk.table if len(rows) == len(chunk.table) else chunk.table.take(pa.array(rows))
                scores = decider.decide(X[rows], columns.rows(rows), names, partial(text_of, kept))
                writer.decisions(chunk.table, scores, rows)
                places = np.flatnonzero(scores.outcome != APPROVE)
                raised = list(messages_of(chunk.table.take(pa.array(rows[places]))))
                for row, transaction, decided in zip(
                    rows[places], raised, decisions(payments(raised), scores.rows(places)), strict=True
                ):
                    earlier = recent_transactions(recent[row].tolist(), int(columns.merchant[row]))
                    writer.alert(alert(transaction, decided, names, X[row], spec, earlier))
                for code in counts:
                    counts[code] += int((scores.outcome == code).sum())
                novel += int(scores.novel.sum())
                seen["hash"].append(columns.transaction[rows])
                seen["p"].append(scores.probability)
                seen["flagged"].append(scores.outcome != APPROVE)
                seen["amount"].append(priced(columns)[rows])
                seen["time"].append(columns.event_time[rows])
                if chunk.fraud is not None:
                    seen["fraud"].append(chunk.fraud[rows])
            progress(len(chunk.table))
        if not seen["p"]:
            raise InputError(f"{source.path} contains no transactions")
    except BaseException:
        writer.close(complete=False)
        raise
    writer.close(complete=True)
    time = np.concatenate(seen["time"])
    days = max((int(time.max()) - int(time.min())) / MS_PER_DAY, 1 / 24)
    flagged = np.concatenate(seen["flagged"])
    fraud = None
    if reports is not None:
        fraud = known_labels(np.concatenate(seen["hash"]), reports).final
    elif seen["fraud"]:
        fraud = np.concatenate(seen["fraud"])
    quality = None
    if fraud is not None:
        quality = evaluate(np.concatenate(seen["p"]), flagged, fraud, np.concatenate(seen["amount"]), days)
    return ReplaySummary(
        read=source.read,
        rejected=source.rejected,
        duplicates=duplicates,
        decided=len(time),
        outcomes={OUTCOMES[code]: counts[code] for code in counts},
        novel=novel,
        days=round(days, 2),
        alerts_per_day=round(float(flagged.sum()) / days, 2),
        bundle=bundle.version,
        quality=quality,
    )
