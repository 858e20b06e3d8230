"""Turn features into decisions with booster, calibration, novelty and policy. Replay and the stream share this code."""

from collections.abc import Callable, Sequence
from enum import IntFlag
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct, structs

from core.messages import Alert, Decision, Outcome, RecentTransaction, Transaction, alert_id
from models.bundles.bundle import Bundle
from models.features.columns import UNKNOWN_AMOUNT, Mark, TransactionColumns
from models.features.spec import FeatureSpec
from models.novelty import novelty
from models.policy import APPROVE, DECLINE, REVIEW

if TYPE_CHECKING:
    from models.rules import RuleSet  # Polars is imported only if there are rules

Text = Callable[[str], Sequence[str | None]]
Matrix = npt.NDArray[np.float32]
Floats = npt.NDArray[np.float64]

OUTCOMES = {APPROVE: Outcome.APPROVE, REVIEW: Outcome.REVIEW, DECLINE: Outcome.DECLINE}
SCORE_REVIEW, SCORE_DECLINE, NOVEL = "score_review", "score_decline", "novel"
MODEL_UNAVAILABLE, RULE = "model_unavailable", "rule"
CURRENCY_UNKNOWN, EVENT_LATE, ID_REUSED = "currency_unknown", "event_late", "transaction_id_reused"
NO_BUNDLE = "none"


class Doubt(IntFlag):
    """Reason not to rely on a score. The transaction is at least reviewed, whatever the score and the rules say."""

    UNPRICED = 1  # its currency has no exchange rate
    LATE = 2  # the event is late, so its windows are no longer complete
    REUSED = 4  # the id was used before, for a different transaction


DOUBT_CODES = {Doubt.UNPRICED: CURRENCY_UNKNOWN, Doubt.LATE: EVENT_LATE, Doubt.REUSED: ID_REUSED}


class Scores(Struct, frozen=True):
    """
    Scores of n transactions.

    ``outcome`` int8 [n] is the overall outcome; ``by_score`` int8 [n] is the outcome by probability alone. ``probability`` is
    NaN where the model could not score. ``doubts`` uint8 [n] are bits of ``Doubt``. ``held`` bool [n, R] marks which of the R
    rules match.
    """

    bundle: str
    rules: tuple[str, ...]
    probability: Floats
    novelty: Floats
    outcome: npt.NDArray[np.int8]
    novel: npt.NDArray[np.bool_]
    doubts: npt.NDArray[np.uint8]
    by_score: npt.NDArray[np.int8]
    held: npt.NDArray[np.bool_]

    def rows(self, index: Any) -> "Scores":
        """Return the scores of some transactions, selected by slice, mask or indices."""
        return Scores(self.bundle, self.rules, *(getattr(self, name)[index] for name in self.__struct_fields__[2:]))

    def hits(self, i: int) -> tuple[str, ...]:
        """Return the ids of the rules that match transaction i."""
        return tuple(self.rules[rule] for rule in np.flatnonzero(self.held[i]))


def doubts_of(columns: TransactionColumns) -> npt.NDArray[np.uint8]:
    """Return the ``Doubt`` bits of n transactions, uint8 [n]."""
    doubts = np.where(columns.amount == UNKNOWN_AMOUNT, int(Doubt.UNPRICED), 0)
    doubts |= np.where(columns.has(Mark.LATE), int(Doubt.LATE), 0)
    doubts |= np.where(columns.has(Mark.REUSED), int(Doubt.REUSED), 0)
    return doubts.astype(np.uint8)


def score(bundle: Bundle, X: Matrix, doubts: npt.NDArray[np.uint8]) -> Scores:
    """Score X, float32 [n, F]. Transactions with ``doubts`` (uint8 [n], bits of ``Doubt``) are at least reviewed."""
    probability = bundle.calibration.probability(bundle.margins(X))
    unusual = novelty(bundle.forest, X)
    outcome = bundle.policy.outcomes(probability, unusual)
    outcome = np.where((doubts > 0) & (outcome == APPROVE), REVIEW, outcome).astype(np.int8)
    return Scores(
        bundle=bundle.version,
        rules=(),
        probability=probability,
        novelty=unusual,
        outcome=outcome,
        novel=unusual >= bundle.policy.novel,
        doubts=doubts,
        by_score=bundle.policy.by_score(probability),
        held=np.zeros((len(X), 0), np.bool_),
    )


class Decider(Struct, frozen=True):
    """Decides transactions with a bundle and, optionally, rules."""

    bundle: Bundle | None
    rules: "RuleSet | None" = None

    @property
    def version(self) -> str:
        """Version of the bundle, or ``none`` without one; with rules, followed by a plus sign and the version of the rules."""
        version = self.bundle.version if self.bundle else NO_BUNDLE
        return f"{version}+{self.rules.version}" if self.rules else version

    def decide(
        self,
        X: Matrix,
        columns: TransactionColumns,
        names: tuple[str, ...],
        text: Text,
        failed: Callable[[int], None] | None = None,
    ) -> Scores:
        """
        Score X, float32 [n, F], and apply the rules.

        If transactions cannot be scored, ``failed`` is called with their count. If an exception is the cause, the call is made
        inside its handler, so that ``failed`` can log the traceback. Without ``failed``, the exception is raised.
        """
        doubts = doubts_of(columns)
        scores = self._scored(X, doubts, failed)
        if self.rules is None:
            return scores
        try:
            return apply_rules(self.rules, scores, columns.event_time, names, X, text)
        except Exception:  # a failed rule is disabled and raises nothing; after any other error, review all transactions
            if failed is None:
                raise
            if scores.bundle != NO_BUNDLE:
                failed(len(X))
            return unscored(doubts)

    def _scored(self, X: Matrix, doubts: npt.NDArray[np.uint8], failed: Callable[[int], None] | None) -> Scores:
        if self.bundle is None:
            if failed is not None:
                failed(len(X))
            return unscored(doubts)
        try:
            return score(self.bundle, X, doubts)
        except Exception:  # whatever the error, the transactions must be decided: review all
            if failed is None:
                raise
            failed(len(X))
            return unscored(doubts)


def unscored(doubts: npt.NDArray[np.uint8]) -> Scores:
    """Return scores for n transactions that the model cannot score: all go to review. ``doubts`` is uint8 [n]."""
    n = len(doubts)
    nothing = np.full(n, np.nan)
    review = np.full(n, REVIEW, np.int8)
    return Scores(NO_BUNDLE, (), nothing, nothing, review, np.zeros(n, np.bool_), doubts, review, np.zeros((n, 0), np.bool_))


def apply_rules(
    rules: "RuleSet", scores: Scores, event_time: npt.NDArray[np.int64], names: tuple[str, ...], X: Matrix, text: Text
) -> Scores:
    """
    Return the scores after applying the rules.

    ``names`` are the names of the columns of X, float32 [n, F]. ``text`` returns a text field of the transactions by name.
    """
    from models.rules import numbers, texts

    places = {name: place for place, name in enumerate(names)}

    def field(name: str) -> Any:
        if name in places:
            return numbers(X[:, places[name]])
        return numbers(getattr(scores, name)) if name in ("probability", "novelty") else texts(text(name))

    held = rules.hits(event_time, field)
    outcome = rules.outcomes(held, scores.outcome, ~np.isnan(scores.probability) & (scores.doubts == 0))
    return structs.replace(scores, outcome=outcome, rules=rules.ids, held=held)


def reason_codes(scores: Scores, i: int) -> tuple[str, ...]:
    """Return the reason codes of transaction i. The features behind a score are explained later, and only for alerts."""
    codes = [RULE] if scores.held[i].any() else []
    codes += [code for doubt, code in DOUBT_CODES.items() if scores.doubts[i] & doubt]
    if scores.bundle == NO_BUNDLE:
        return (MODEL_UNAVAILABLE, *codes)
    if scores.by_score[i]:
        codes.append(SCORE_DECLINE if scores.by_score[i] == DECLINE else SCORE_REVIEW)
    if scores.novel[i]:
        codes.append(NOVEL)
    return tuple(codes)


def expected_losses(probability: Floats, amount: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return probability times amount in minor units, int64 [n]; the whole amount where there is no probability."""
    return np.where(np.isnan(probability), amount, np.rint(probability * amount)).astype(np.int64)


class Payments(NamedTuple):
    """What a decision repeats of n transactions: ids, currency, event time (epoch ms) and amount (minor units), n of each."""

    transaction_id: Sequence[str]
    card_id: Sequence[str]
    merchant_id: Sequence[str]
    currency: Sequence[str]
    event_time: Sequence[int]
    amount: Sequence[int]


def payments(transactions: Sequence[Transaction]) -> Payments:
    """Return the payments of some messages."""
    return Payments(*([getattr(one, name) for one in transactions] for name in Payments._fields))


def decisions(paid: Payments, scores: Scores) -> list[Decision]:
    """Return the decision messages of n transactions."""
    n = len(paid.transaction_id)
    codes: list[tuple[str, ...]] = [()] * n
    hits: list[tuple[str, ...]] = [()] * n
    for i in np.flatnonzero((scores.outcome != APPROVE) | scores.novel | scores.held.any(axis=1)):
        codes[i], hits[i] = reason_codes(scores, int(i)), scores.hits(int(i))
    losses = expected_losses(scores.probability, paid.amount).tolist()
    columns = (scores.outcome.tolist(), scores.probability.tolist(), scores.novelty.round(6).tolist(), losses, codes, hits)
    return [
        Decision(
            transaction_id=transaction_id,
            card_id=card_id,
            merchant_id=merchant_id,
            event_time=event_time,
            amount=amount,
            currency=currency,
            outcome=OUTCOMES[outcome],
            probability=probability if probability == probability else None,  # NaN: the model could not score
            bundle=scores.bundle,
            reason_codes=reasons,
            rule_hits=held,
            expected_loss=loss,
            novelty=novelty if novelty == novelty else None,
        )
        for transaction_id, card_id, merchant_id, currency, event_time, amount, outcome, probability, novelty, loss, reasons, held in zip(
            *paid, *columns, strict=True
        )
    ]


def alert(
    transaction: Transaction, decided: Decision, names: tuple[str, ...], x: npt.NDArray[np.float32], spec: FeatureSpec,
    recent: tuple[RecentTransaction, ...],
) -> Alert:  # fmt: skip
    """Return the alert message of a flagged decision. ``x`` float32 [F] holds its features."""
    return Alert(
        alert_id=alert_id(transaction),
        transaction=transaction,
        decision=decided,
        features={name: value if value == value else None for name, value in zip(names, x.tolist(), strict=True)},
        spec=spec.version,
        recent=recent,
        currency=spec.currency,
    )
