"""
Ablation: would features of the device find more fraud than those of card and merchant alone?

For each transaction, plain Python computes features of its device over the past 30 days: how many other cards used the device
(within a day, and within 30 days), and how many of its frauds were known at the time. In each of three simulated worlds, a
booster is trained and tested with and without these features, as ``whyflag train`` does. Decision 38 draws the conclusion.
``python -m benchmarks.device`` takes about five minutes.
"""

import tempfile
from collections import defaultdict, deque
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import xgboost as xgb
from sklearn.metrics import average_precision_score

from core.clock import MS_PER_DAY
from core.privacy.masking import Privacy
from models.features.columns import TransactionColumns
from models.features.spec import default_spec
from training.data.dataset import KnownLabels
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.progress import NoProgress
from training.simulator import SimulationSpec, simulate
from training.train import BOOSTER, DEFAULT, History, load_history

SEEDS = (7, 8, 9)
TRANSACTIONS = 300_000
WINDOW_MS = 30 * MS_PER_DAY
KEPT = 512  # newest transactions of a device that count
VARIANTS = {"without": [], "cards per device": [0, 1], "frauds per device": [2], "both": [0, 1, 2]}


def history_of(seed: int) -> tuple[History, dict[str, str]]:
    """Return a simulated history with its features, and the typology of each fraud by transaction id."""
    world = simulate(SimulationSpec(transactions=TRANSACTIONS, seed=seed))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pq.write_table(world.transactions, folder / "transactions.parquet")
        pq.write_table(world.labels, folder / "labels.parquet")
        source = TransactionFile(folder / "transactions.parquet", load_mapping("whyflag"))
        history = load_history(source, default_spec(), folder / "labels.parquet", 7 * MS_PER_DAY, Privacy(), NoProgress())
    typologies = zip(world.truth["transaction_id"].to_pylist(), world.truth["typology"].to_pylist(), strict=True)
    return history, {transaction: typology for transaction, typology in typologies if typology}


def device_features(columns: TransactionColumns, known: KnownLabels) -> np.ndarray:
    """Return other cards within a day, other cards within 30 days, and known frauds; float32 [n, 3], NaN without a device."""
    found = np.full((len(columns.event_time), 3), np.nan, np.float32)
    past: dict[int, deque[tuple[int, int, int]]] = defaultdict(lambda: deque(maxlen=KEPT))
    for i in np.argsort(columns.event_time, kind="stable").tolist():
        device, card, now = int(columns.device[i]), int(columns.card[i]), int(columns.event_time[i])
        if device == 0:
            continue
        events = past[device]
        while events and events[0][0] <= now - WINDOW_MS:
            events.popleft()
        found[i, 0] = len({other for time, other, _ in events if other != card and time > now - MS_PER_DAY})
        found[i, 1] = len({other for _, other, _ in events if other != card})
        found[i, 2] = sum(known.reported[j] <= now < known.retracted[j] for _, _, j in events)
        events.append((now, card, i))
    return found


def main() -> None:
    """Print average precision and the recall of account takeover, whose fraudsters use one device for several accounts."""
    print(f"{'seed':>4} {'features':<18} {'average precision':>18} {'recall':>7} {'of takeovers':>13}")
    for seed in SEEDS:
        history, typologies = history_of(seed)
        columns, known, split = history.dataset.columns, history.dataset.known, history.split
        extra = device_features(columns, known)
        train = np.flatnonzero(split.train(columns.event_time) & history.usable)
        fraud_then = known.fraud(split.calibration_begin)[train]
        test = split.test(columns.event_time) & history.usable
        fraud = known.final[test]
        ids = history.dataset.identities["transaction_id"].to_pylist()
        takeover = np.array([typologies.get(one) == "account_takeover" for one in ids])[test]
        for name, chosen in VARIANTS.items():
            X = np.hstack([history.X, extra[:, chosen]])
            booster = xgb.train({**BOOSTER, "seed": seed}, xgb.DMatrix(X[train], label=fraud_then), DEFAULT.rounds)
            margin = booster.predict(xgb.DMatrix(X[test]), output_margin=True)
            alerts = np.argsort(-margin)[: int(fraud.sum())]  # as many alerts as there are frauds
            print(
                f"{seed:>4} {name:<18} {average_precision_score(fraud, margin):18.3f} {fraud[alerts].mean():7.3f} "
                f"{takeover[alerts].sum() / max(takeover.sum(), 1):9.3f} of {takeover.sum()}",
                flush=True,
            )


if __name__ == "__main__":
    main()
