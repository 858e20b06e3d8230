"""From features to decisions: booster, calibration, novelty and policy, the same in replay and in the stream."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.messages import Alert, Decision, Outcome, RecentTransaction, Transaction, alert_id
from models.bundle import Bundle
from models.features.spec import FeatureSpec
from models.novelty import novelty
from models.policy import APPROVE, DECLINE, REVIEW

Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

OUTCOMES = {APPROVE: Outcome.APPROVE, REVIEW: Outcome.REVIEW, DECLINE: Outcome.DECLINE}
SCORE_REVIEW, SCORE_DECLINE, NOVEL = "score_review", "score_decline", "novel"
MODEL_UNAVAILABLE, CURRENCY_UNKNOWN = "model_unavailable", "currency_unknown"
NO_BUNDLE = "none"


class Scores(Struct, frozen=True):
    """Scores of n transactions. ``outcome`` int8 [n]; ``probability`` NaN where the model could not score."""

    bundle: str
    probability: Floats
    novelty: Floats
    outcome: npt.NDArray[np.int8]
    novel: npt.NDArray[np.bool_]
    unpriced: npt.NDArray[np.bool_]

    def rows(self, index: Any) -> "Scores":
        """Some of the transactions, by slice, mask or indices."""
        return Scores(self.bundle, *(getattr(self, name)[index] for name in self.__struct_fields__[1:]))


def score(bundle: Bundle, X: Matrix, unpriced: npt.NDArray[np.bool_]) -> Scores:
    """Score X float32 [n, F]. ``unpriced`` marks transactions in a currency without a rate: at least a review."""
    margin = np.atleast_1d(bundle.booster.inplace_predict(X, predict_type="margin", validate_features=False))
    probability = bundle.calibration.probability(margin)
    unusual = novelty(bundle.forest, X)
    outcome = bundle.policy.outcomes(probability, unusual)
    outcome = np.where(unpriced & (outcome == APPROVE), REVIEW, outcome).astype(np.int8)
    return Scores(bundle.version, probability, unusual, outcome, unusual >= bundle.policy.novel, unpriced)


def unscored(n: int) -> Scores:
    """Scores for n transactions when the model cannot score: every one goes to review."""
    nothing = np.full(n, np.nan)
    no = np.zeros(n, np.bool_)
    return Scores(NO_BUNDLE, nothing, nothing, np.full(n, REVIEW, np.int8), no, no)


def reason_codes(scores: Scores, i: int) -> tuple[str, ...]:
    """Why transaction i has its outcome. The features behind a score are explained later, for alerts only."""
    if scores.bundle == NO_BUNDLE:
        return (MODEL_UNAVAILABLE,)
    codes = []
    if scores.unpriced[i]:
        codes.append(CURRENCY_UNKNOWN)
    elif scores.outcome[i] != APPROVE:
        codes.append(SCORE_DECLINE if scores.outcome[i] == DECLINE else SCORE_REVIEW)
    if scores.novel[i]:
        codes.append(NOVEL)
    return tuple(codes)


def expected_losses(probability: Floats, amount: Sequence[int]) -> npt.NDArray[np.int64]:
    """Probability of fraud times the amount, minor units; the whole amount where there is no probability. int64 [n]."""
    return np.where(np.isnan(probability), amount, np.rint(probability * amount)).astype(np.int64)


def decisions(transactions: Sequence[Transaction], scores: Scores) -> list[Decision]:
    """The decision messages of n transactions."""
    codes: list[tuple[str, ...]] = [()] * len(transactions)
    for i in np.flatnonzero((scores.outcome != APPROVE) | scores.novel):
        codes[i] = reason_codes(scores, int(i))
    losses = expected_losses(scores.probability, [transaction.amount for transaction in transactions]).tolist()
    columns = (scores.outcome.tolist(), scores.probability.tolist(), scores.novelty.round(6).tolist(), losses, codes)
    return [
        Decision(
            transaction_id=transaction.transaction_id,
            card_id=transaction.card_id,
            merchant_id=transaction.merchant_id,
            event_time=transaction.event_time,
            amount=transaction.amount,
            currency=transaction.currency,
            outcome=OUTCOMES[outcome],
            probability=probability if probability == probability else None,  # NaN: the model could not score
            bundle=scores.bundle,
            reason_codes=reasons,
            expected_loss=loss,
            novelty=novelty if novelty == novelty else None,
        )
        for transaction, outcome, probability, novelty, loss, reasons in zip(transactions, *columns, strict=True)
    ]


def alert(
    transaction: Transaction, decided: Decision, names: tuple[str, ...], x: npt.NDArray[np.float32], spec: FeatureSpec,
    recent: tuple[RecentTransaction, ...],
) -> Alert:  # fmt: skip
    """The alert message of a flagged decision; ``x`` float32 [F] are its features."""
    return Alert(
        alert_id=alert_id(transaction.transaction_id),
        transaction=transaction,
        decision=decided,
        features={name: None if np.isnan(value) else float(value) for name, value in zip(names, x, strict=True)},
        spec=spec.version,
        recent=recent,
        currency=spec.currency,
    )
