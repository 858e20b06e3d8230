"""What a bundle records about its training and its quality: the file ``metrics.json``."""

from datetime import datetime
from typing import Any

from msgspec import Struct

from models.calibration import CalibrationMethod, CalibrationQuality


class Measures(Struct, frozen=True, omit_defaults=True):
    """
    Quality measures of n scored transactions. An undefined measure is None: without alerts, for example, precision is undefined.

    ``alerts``, ``alerts_per_day``, ``precision``, ``recall`` and ``amount_caught`` measure the flagged transactions.
    ``amount_caught`` is the share of the fraudulent amount that was flagged. ``auc``, ``average_precision``, ``brier`` and
    ``log_loss`` measure the scores.
    """

    transactions: int
    frauds: int
    alerts: int
    alerts_per_day: float | None
    precision: float | None
    recall: float | None
    amount_caught: float | None
    auc: float | None
    average_precision: float | None
    brier: float | None
    log_loss: float | None
    calibration_error: float | None = None
    mean_probability_of_alerts: float | None = None

    def shown(self) -> dict[str, int | float | None]:
        """Return the measures by display name: the field name with spaces instead of underscores."""
        return {
            name.replace("_", " "): getattr(self, name)
            for name in self.__struct_fields__
            if name in _ALWAYS_SHOWN or getattr(self, name) is not None
        }


_ALWAYS_SHOWN = frozenset(Measures.__struct_fields__) - {"calibration_error", "mean_probability_of_alerts"}


class CalibrationRecord(Struct, frozen=True):
    """The calibration method, how the methods compare, and the share of frauds that was reported by the end of the period."""

    method: CalibrationMethod
    compared: dict[CalibrationMethod, CalibrationQuality]
    reported_share: float = 1.0


class TrainingRecord(Struct, frozen=True):
    """Size and settings of the training."""

    transactions: int
    known_frauds: int
    seed: int
    rounds: int


class PeriodRecord(Struct, frozen=True):
    """Start and end of the periods, UTC, as ``YYYY-MM-DD HH:MM``."""

    train_begin: str
    train_end: str
    calibration_begin: str
    calibration_end: str
    test_begin: str
    test_end: str

    @property
    def test_begin_ms(self) -> int:
        """Start of the test period, epoch ms."""
        return int(datetime.fromisoformat(f"{self.test_begin}+00:00").timestamp() * 1000)

    @property
    def test_days(self) -> float:
        """Length of the test period, days."""
        return (datetime.fromisoformat(self.test_end) - datetime.fromisoformat(self.test_begin)).total_seconds() / 86_400


class ThresholdMeasures(Struct, frozen=True):
    """
    What a threshold of the probability would have flagged in the test period.

    ``recall`` is the share of the frauds, ``amount_caught`` the share of the fraudulent amount that it would have flagged.
    """

    threshold: float
    alerts_per_day: float | None
    precision: float | None
    recall: float | None
    amount_caught: float | None


class DataRecord(Struct, frozen=True):
    """Name of the transactions' file, and the SHA-256 of each file."""

    name: str
    sha256: dict[str, str]


class BundleMetrics(Struct, frozen=True, omit_defaults=True):
    """
    The metrics of a bundle.

    ``test`` holds the measures of the test period. ``novel`` holds the same measures for the novelty score: its flagged
    transactions are those that only the novelty score flagged, and its scores are the novelty scores. ``reliability`` holds
    (low, high, count, frauds) for each bin of the probability. ``thresholds`` says what other thresholds would have flagged. ``budget`` is in alerts per day. ``pan_key`` is the fingerprint of
    the key that tokenised card numbers.
    """

    test: Measures
    novel: Measures
    calibration: CalibrationRecord
    training: TrainingRecord
    recipe: dict[str, Any]
    split: PeriodRecord
    label_delay_days: float
    data: DataRecord
    environment: dict[str, str]
    reliability: tuple[tuple[float, float, int, int], ...] = ()
    thresholds: tuple[ThresholdMeasures, ...] = ()
    budget: float = 0.0
    pan_key: str = ""
