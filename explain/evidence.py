"""
The facts of an alert, each with an id: contributions, what is normal, the timeline, novelty, data quality, the score.

Facts come first. Every sentence that anybody or anything writes about an alert rests on these, and is checked against them.
"""

import math
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from core.errors import InvalidEvent
from core.messages import Alert, EvidenceItem
from core.money import minor_per_major, money
from explain.reasons import REASONS, entity_of, sentence, shown, usual, window_words
from explain.untrusted import suspicious
from models.attribution import contributions
from models.bundle import Bundle
from models.features.spec import StateKind, op_of
from models.scorer import CURRENCY_UNKNOWN, EVENT_LATE, ID_REUSED, MODEL_UNAVAILABLE, NO_BUNDLE, NOVEL

CONTRIBUTIONS = 7  # as many as an analyst reads; the waterfall adds up the rest
_FEW = 30  # transactions of a bin below which "of 100" would claim more than is known
# exact windows count the transaction itself, the complete buckets of a merchant do not
_BASELINES = {"card": ("B1", "made"), "merchant": ("B2", "had")}
_COUNTED = {StateKind.EXACT: "this one included", StateKind.BUCKETED: "this one not included"}
_DOUBTS = {
    EVENT_LATE: " Its time lies further back than the stream allows, so its windows are not complete and it was sent to review.",
    ID_REUSED: " The card used the id of this transaction before for another purchase, so it was sent to review.",
}
_OPTIONAL = ("mcc", "country", "channel", "device_id")


class Evidence(Struct, frozen=True):
    """
    Evidence of one alert: ``items`` in reading order; ``x``, ``shap`` float32 [F] and the bias, in log-odds; empty where no
    model scored.
    """

    items: tuple[EvidenceItem, ...]
    x: npt.NDArray[np.float32]
    shap: npt.NDArray[np.float32]
    bias: float

    def item(self, evidence_id: str) -> EvidenceItem | None:
        """The item of an id."""
        return next((item for item in self.items if item.evidence_id == evidence_id), None)


def gather(alert: Alert, bundle: Bundle) -> Evidence:
    """
    All evidence of an alert raised by this bundle.

    ``contribution`` values of the items plus the item ``R`` (all other features) plus the bias add up to the margin.

    Raises:
        InvalidEvent: if the alert lacks features of the bundle it names.
    """
    items: list[EvidenceItem] = []
    names = bundle.spec.feature_names
    x, shap, bias = np.full(len(names), np.nan, np.float32), np.zeros(len(names), np.float32), 0.0
    if alert.decision.bundle == bundle.version:
        if alert.features.keys() != set(names):
            raise InvalidEvent("the alert's features are not those of the bundle that it names")
        x, shap, bias = attributed(alert, bundle)
        items += _contributions(alert, bundle, shap, bias)
        items += _balance(items)
    elif alert.decision.bundle != NO_BUNDLE:
        text = f"This alert was raised by bundle {alert.decision.bundle}; contributions need that bundle, and this worker has {bundle.version}."
        items.append(EvidenceItem(evidence_id="Q2", kind="quality", code="OTHER_BUNDLE", text=text))
    items.append(_score(alert, bundle))
    items += _normal(alert, bundle)
    items.append(_timeline(alert))
    if NOVEL in alert.decision.reason_codes:
        items.append(
            EvidenceItem(
                evidence_id="N1",
                kind="novelty",
                code="NOVEL",
                text="The whole of this transaction is unlike anything in training.",
            )
        )
    items += [
        EvidenceItem(evidence_id=f"V{number}", kind="rule", code="RULE", text=f"Rule {rule} holds for this transaction.")
        for number, rule in enumerate(alert.decision.rule_hits, start=1)
    ]
    items += _hostile(alert)
    items += _quality(alert)
    return Evidence(tuple(items), x, shap, bias)


def attributed(alert: Alert, bundle: Bundle) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32], float]:
    """An alert's features and their TreeSHAP contributions, float32 [F], and the bias, in log-odds of the bundle's model."""
    values = (alert.features[name] for name in bundle.spec.feature_names)
    x = np.array([math.nan if value is None else value for value in values], np.float32)
    rows, biases = contributions(bundle.booster, x[None, :])
    return x, rows[0], float(biases[0])


def _contributions(alert: Alert, bundle: Bundle, shap: npt.NDArray[np.float32], bias: float) -> list[EvidenceItem]:
    spec, items = bundle.spec, []
    order = np.argsort(-np.abs(shap), kind="stable")
    top = order[:CONTRIBUTIONS]
    for rank, column in enumerate(top, start=1):
        name = spec.feature_names[column]
        entity, feature = entity_of(spec, name)
        reason, value = REASONS[op_of(feature)], alert.features[name]
        normal = usual(feature, entity, alert.features)
        text = sentence(entity, feature, value, spec.currency)
        if normal is not None and value is not None:
            text += f" Usual for it: {shown(normal, reason.unit, spec.currency)}."
        items.append(
            EvidenceItem(
                evidence_id=f"E{rank}",
                kind="contribution",
                code=f"{entity.name.upper()}_{reason.code}",
                text=text,
                feature=name,
                value=value,
                normal=normal,
                contribution=float(shap[column]),
            )
        )
    rest = float(shap[order[CONTRIBUTIONS:]].sum(dtype=np.float64))
    items.append(
        EvidenceItem(
            evidence_id="R",
            kind="rest",
            code="ALL_OTHERS",
            text=f"The other {len(shap) - len(top)} features together.",
            contribution=rest,
        )
    )
    items.append(
        EvidenceItem(evidence_id="A", kind="bias", code="STARTING_POINT", text="Where every score starts.", contribution=bias)
    )
    return items


def _score(alert: Alert, bundle: Bundle) -> EvidenceItem:
    decision = alert.decision
    if decision.probability is None:
        text = "No model could score this transaction, so it was sent to review."
    else:
        text = f"The calibrated probability of fraud is {decision.probability * 100:.1f} %"
        if decision.bundle == bundle.version:
            text += f"; review starts at {bundle.policy.review * 100:.1f} %.{_frequency(bundle, decision.probability)}"
        else:
            text += "."
    text += "".join(sentence for code, sentence in _DOUBTS.items() if code in decision.reason_codes)
    if CURRENCY_UNKNOWN in decision.reason_codes:
        text += f" There is no exchange rate for {decision.currency}, so amounts were left out of the score."
    codes = decision.reason_codes or (MODEL_UNAVAILABLE,)
    return EvidenceItem(evidence_id="S1", kind="score", code=codes[0].upper(), text=text, value=decision.probability)


def _frequency(bundle: Bundle, probability: float) -> str:
    """The probability as a natural frequency, from what the calibration slice held. Empty where it held nothing alike."""
    seen = bundle.calibration.bin_of(probability)
    if seen is None:
        return ""
    if seen.count < _FEW:
        return f" In calibration {seen.frauds:,} of only {seen.count:,} transactions scored like this were fraud."
    of_hundred = 100 * seen.frauds / seen.count
    share = f"about {of_hundred:.0f}" if of_hundred >= 1 else "fewer than 1"
    return f" Of 100 transactions scored like this in calibration, {share} were fraud ({seen.frauds:,} of {seen.count:,})."


def _normal(alert: Alert, bundle: Bundle) -> list[EvidenceItem]:
    """What this card and this merchant usually do, from the longest window of each."""
    currency, features, items = bundle.spec.currency, alert.features, []
    for entity in bundle.spec.entities:
        window = entity.windows[-1].length
        count, mean = (features.get(f"{entity.name}_{name}_{window}") for name in ("count", "amount_mean"))
        if count is None or mean is None or entity.name not in _BASELINES:
            continue
        evidence_id, verb = _BASELINES[entity.name]
        text = f"In {window_words(window)} this {entity.name} {verb} {count:,.0f} transactions, {_COUNTED[entity.state]}, of {money(mean * minor_per_major(currency), currency)} on average"
        highest = features.get(f"{entity.name}_amount_max_{window}")
        text += f" and at most {money(highest * minor_per_major(currency), currency)}." if highest is not None else "."
        if (online := features.get(f"{entity.name}_online_share_{window}")) is not None:
            text += f" {online * 100:.1f} % of those before were online."
        items.append(EvidenceItem(evidence_id=evidence_id, kind="baseline", code=f"{entity.name.upper()}_NORMAL", text=text))
    return items


def _balance(items: list[EvidenceItem]) -> list[EvidenceItem]:
    """How many of the strongest reasons speak for and against fraud."""
    signs = [(item.contribution or 0) > 0 for item in items if item.kind == "contribution"]
    if not signs:
        return []
    against = len(signs) - sum(signs)
    text = f"Of the {len(signs)} strongest reasons, {sum(signs)} speak for fraud and {against} against fraud."
    if not against:
        text = f"None of the {len(signs)} strongest reasons speaks against fraud."
    return [EvidenceItem(evidence_id="D1", kind="balance", code="BALANCE", text=text)]


def _hostile(alert: Alert) -> list[EvidenceItem]:
    """Text of the transaction that addresses a machine: itself a sign of fraud. What it says is never repeated."""
    names = [name for name in ("merchant_name", "memo") if suspicious(getattr(alert.transaction, name) or "")]
    if not names:
        return []
    words = {"merchant_name": "merchant's name", "memo": "memo"}
    text = f"The {' and the '.join(words[name] for name in names)} of this transaction hold{'s' if len(names) == 1 else ''} text that looks like instructions to a machine."
    return [EvidenceItem(evidence_id="H1", kind="hostile", code="SUSPECTED_INJECTION", text=text)]


def _timeline(alert: Alert) -> EvidenceItem:
    transaction, recent = alert.transaction, alert.recent
    when = datetime.fromtimestamp(transaction.event_time / 1000, UTC)
    text = f"{money(transaction.amount, transaction.currency)} on {when:%Y-%m-%d} at {when:%H:%M} UTC"
    if transaction.channel is not None:
        text += ", online" if transaction.channel == "online" else ", card present"
    if transaction.country is not None:
        text += f", in {transaction.country}"
    hour = sum(transaction.event_time - past.event_time < 3_600_000 for past in recent)
    text += (
        f". {hour} of the card's last {len(recent)} transactions were in the hour before."
        if recent
        else ". No earlier transaction of this card is known."
    )
    return EvidenceItem(evidence_id="T1", kind="timeline", code="TIMELINE", text=text)


def _quality(alert: Alert) -> list[EvidenceItem]:
    missing = [name for name in _OPTIONAL if getattr(alert.transaction, name) is None]
    if "device_id" in missing and alert.transaction.channel != "online":
        missing.remove("device_id")
    if not missing:
        return []
    text = f"Not given with this transaction: {', '.join(name.removesuffix('_id') for name in missing)}."
    return [EvidenceItem(evidence_id="Q1", kind="quality", code="MISSING_FIELDS", text=text)]
