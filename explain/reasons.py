"""
The catalogue of reasons: what each kind of feature means, in plain words and in both directions.

A change of wording or codes is a new ``CATALOGUE`` version; explanations carry it.
"""

import math
from typing import Final

from msgspec import Struct

from core.clock import MS_PER_HOUR, MS_PER_MINUTE, duration_ms
from core.messages import ThemeFact
from core.money import minor_per_major, money
from models.features.spec import Entity, Feature, FeatureSpec, Op, op_of
from models.features.themes import Theme

CATALOGUE: Final = "reasons-3"

_WINDOWS = {"h": "hour", "d": "day", "m": "minute", "s": "second"}
_WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


THEME_NAMES: Final[dict[str, str]] = {
    Theme.AMOUNT: "Amount against the card's habit",
    Theme.PACE: "Pace of payments",
    Theme.SMALL_AMOUNTS: "Small test amounts",
    Theme.PLACE: "Place and travel",
    Theme.DEVICE: "Device and channel",
    Theme.TIME: "Time of day",
    Theme.MERCHANT_KIND: "Kind of merchant",
    Theme.REPORTED_FRAUD: "Fraud reported here",
    Theme.MERCHANT_ACTIVITY: "Merchant's activity and prices",
}


class Reason(Struct, frozen=True):
    """
    A reason code, the unit of its value, and its words. ``{value}``, ``{normal}``, ``{window}`` and ``{subject}`` are filled in;
    a yes/no feature has ``no`` for the words when it is not so.
    """

    code: str
    unit: str
    label: str
    words: str
    no: str = ""


REASONS: Final[dict[Op, Reason]] = {
    Op.AMOUNT: Reason("AMOUNT", "money", "amount", "The amount is {value}."),
    Op.HOUR: Reason("TIME_OF_DAY", "clock", "time of day", "It happened at {value} UTC."),
    Op.WEEKDAY: Reason("WEEKDAY", "weekday", "weekday", "It happened on a {value}."),
    Op.WEEKEND: Reason("WEEKEND", "flag", "weekend", "It happened at a weekend.", "It happened on a working day."),
    Op.NIGHT: Reason("NIGHT", "flag", "night", "It happened at night (UTC).", "It did not happen at night (UTC)."),
    Op.ONLINE: Reason("CHANNEL", "flag", "online", "It was made online.", "The card was present at the merchant."),
    Op.COUNT: Reason("VELOCITY", "count", "transactions in {window}", "{subject} had {value} transactions within {window}."),
    Op.AMOUNT_SUM: Reason("SPEND", "money", "spend in {window}", "{subject} spent {value} within {window}."),
    Op.AMOUNT_MEAN: Reason(
        "MEAN_AMOUNT", "money", "mean amount of {window}", "The mean amount of {subject_of} within {window} is {value}."
    ),
    Op.AMOUNT_MAX: Reason("HIGHEST_AMOUNT", "money", "highest amount of {window}", "The highest amount of {subject_of} within {window} is {value}."),
    Op.AMOUNT_RATIO: Reason("AMOUNT_TO_MEAN", "times", "amount to mean of {window}", "The amount is {value} times the mean of {subject_of} in {window}."),
    Op.AMOUNT_TO_MAX: Reason(
        "AMOUNT_TO_HIGHEST", "times", "amount to highest of {window}", "The amount is {value} times the highest of {subject_of} in the {window} before."
    ),
    Op.AMOUNT_ZSCORE: Reason(
        "AMOUNT_DEVIATION", "number", "deviation of the amount", "The amount lies {value} standard deviations from the mean of {subject_of} in {window}."
    ),
    Op.LOW_COUNT: Reason("SMALL_AMOUNTS", "count", "small amounts in {window}", "{subject} had {value} very small amounts within {window}."),
    Op.LOW_SHARE: Reason("SMALL_AMOUNT_SHARE", "share", "share of small amounts in {window}", "{value} of the amounts of {subject_of} within {window} were very small."),
    Op.DISTINCT_MERCHANTS: Reason("MANY_MERCHANTS", "count", "merchants in {window}", "{subject} paid {value} different merchants within {window}."),
    Op.DISTINCT_COUNTRIES: Reason("MANY_COUNTRIES", "count", "countries in {window}", "{subject} was used in {value} countries within {window}."),
    Op.NEW_MERCHANT: Reason(
        "NEW_MERCHANT", "flag", "new merchant", "{subject} had not paid this merchant in the {window} before.", "{subject} had paid this merchant in the {window} before."
    ),
    Op.NEW_COUNTRY: Reason(
        "NEW_COUNTRY", "flag", "new country", "{subject} had not been used in this country in the {window} before.", "{subject} had been used in this country in the {window} before."
    ),
    Op.CATEGORY_SHARE: Reason("CATEGORY_HABIT", "share", "share of this category", "{value} of the transactions of {subject_of} in the {window} before were in this category."),
    Op.NIGHT_SHARE: Reason("NIGHT_HABIT", "share", "share at night", "{value} of the transactions of {subject_of} in the {window} before were at night."),
    Op.ONLINE_SHARE: Reason("ONLINE_HABIT", "share", "share online", "{value} of the transactions of {subject_of} in the {window} before were online."),
    Op.BURST: Reason("BURST", "times", "burst in {window}", "Activity within {window} is {value} times the usual rate of {subject_of}."),
    Op.FRAUD_COUNT: Reason("PAST_FRAUD", "count", "known frauds in {window}", "{value} transactions of {subject_of} in {window} are known to be fraud."),
    Op.FRAUD_SHARE: Reason("PAST_FRAUD_SHARE", "share", "known fraud share of {window}", "{value} of the transactions of {subject_of} in {window} are known to be fraud."),
    Op.FIRST_FRAUD: Reason("FRAUD_SINCE", "days", "first known fraud in {window}", "The first known fraud of {subject_of} in {window} was {value} ago."),
    Op.LAST_FRAUD: Reason("LAST_FRAUD", "days", "last known fraud in {window}", "The last known fraud of {subject_of} in {window} was {value} ago."),
    Op.USUAL_FRAUD_COUNT: Reason("UNEXPLAINED_FRAUD", "count", "frauds of usual amount in {window}", "{value} transactions of {subject_of} in {window} are known to be fraud although their amounts were usual for the cards."),
    Op.USUAL_FRAUD_SHARE: Reason("UNEXPLAINED_FRAUD_SHARE", "share", "share of frauds of usual amount in {window}", "{value} of the transactions of {subject_of} in {window} are known to be fraud although their amounts were usual for the cards."),
    Op.FIRST_USUAL_FRAUD: Reason("UNEXPLAINED_FRAUD_SINCE", "days", "first fraud of usual amount in {window}", "The first known fraud of {subject_of} in {window} whose amount was usual for its card was {value} ago."),
    Op.LAST_USUAL_FRAUD: Reason("LAST_UNEXPLAINED_FRAUD", "days", "last fraud of usual amount in {window}", "The last known fraud of {subject_of} in {window} whose amount was usual for its card was {value} ago."),
    Op.LAST_LEGITIMATE: Reason("LAST_LEGITIMATE", "days", "last transaction not known to be fraud in {window}", "The last transaction of {subject_of} in {window} that is not known to be fraud was {value} ago."),
    Op.AMOUNT_TO_NORMAL: Reason("AMOUNT_TO_NORMAL", "times", "amount to normal", "The amount is {value} times the normal amount of {subject_of}."),
    Op.RECENT_TO_NORMAL: Reason("RECENT_TO_NORMAL", "times", "last amounts to normal", "The mean of the last three amounts of {subject_of} is {value} times its normal amount."),
    Op.MAX_TO_NORMAL: Reason("HIGHEST_TO_NORMAL", "times", "highest amount of {window} to normal", "The highest amount of {subject_of} in the {window} before is {value} times its normal amount."),
    Op.UNUSUAL_COUNT: Reason("UNUSUAL_AMOUNTS", "count", "unusual amounts in {window}", "{subject} had {value} amounts that were unusual for it in the {window} before."),
    Op.FIRST_UNUSUAL: Reason("UNUSUAL_SINCE", "days", "first unusual amount in {window}", "The first unusual amount of {subject_of} in the {window} before was {value} ago."),
    Op.LAST_UNUSUAL: Reason("LAST_UNUSUAL", "days", "last unusual amount in {window}", "The last unusual amount of {subject_of} in the {window} before was {value} ago."),
    Op.SECONDS_SINCE_LAST: Reason("SINCE_LAST", "duration", "time since the last", "The transaction before this one was {value} earlier."),
    Op.DISTANCE: Reason("DISTANCE", "km", "distance", "It is {value} from the place before."),
    Op.SPEED: Reason("TRAVEL_SPEED", "km/h", "travel speed", "Getting here from the place before takes {value}."),
    Op.NEW_DEVICE: Reason("NEW_DEVICE", "flag", "new device", "{subject} had not been used from this device.", "{subject} had been used from this device."),
    Op.FRAUD_REPORTS: Reason("REPORTS", "count", "fraud reports in {window}", "{value} frauds at {subject_of} were reported within {window}."),
    Op.FRAUD_REPORT_SHARE: Reason(
        "REPORT_SHARE", "share", "fraud report rate of {window}", "The smoothed rate of reported fraud at {subject_of} over {window} is {value}."
    ),
}  # fmt: skip


def window_words(window: str) -> str:
    """``"1 hour"``, ``"30 days"``."""
    number, unit = int(window[:-1]), _WINDOWS[window[-1]]
    return f"{number} {unit}{'' if number == 1 else 's'}"


def shown(value: float | None, unit: str, currency: str) -> str:
    """A value as the analyst reads it. Money features are in major units."""
    if value is None or math.isnan(value):
        return "unknown"
    if unit == "money":
        return money(value * minor_per_major(currency), currency)
    if unit == "count":
        return f"{value:.1f}" if abs(value - round(value)) > 0.05 and value < 10 else f"{value:,.0f}"
    if unit == "share":
        return f"{value * 100:.1f} %"
    if unit == "times":
        return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
    if unit == "days":
        return f"{value:.1f} days"
    if unit == "km":
        return f"{value:,.0f} km"
    if unit == "km/h":
        return f"{value:,.0f} km/h"
    if unit == "clock":
        minutes = int(value * 60)
        return f"{minutes // 60:02d}:{minutes % 60:02d}"
    if unit == "weekday":
        return _WEEKDAYS[int(value)]
    if unit == "duration":
        return duration(value)
    if unit == "flag":
        return "yes" if value else "no"
    return f"{value:.1f}"


def duration(seconds: float) -> str:
    """``"45 s"``, ``"12 min"``, ``"3.5 h"``, ``"6.2 days"``."""
    ms = seconds * 1000
    if ms < 2 * MS_PER_MINUTE:
        return f"{seconds:.0f} s"
    if ms < 2 * MS_PER_HOUR:
        return f"{ms / MS_PER_MINUTE:.0f} min"
    if ms < 48 * MS_PER_HOUR:
        return f"{ms / MS_PER_HOUR:.1f} h"
    return f"{ms / MS_PER_HOUR / 24:.1f} days"


def entity_of(spec: FeatureSpec, name: str) -> tuple[Entity, Feature]:
    """The entity and feature of a column."""
    for entity in spec.entities:
        for feature in entity.features:
            if feature.name == name:
                return entity, feature
    raise KeyError(name)


def label(feature: Feature) -> str:
    """A few words for a feature, for pictures and differences."""
    return REASONS[op_of(feature)].label.format(window=window_words(feature.window) if feature.window else "")


def sentence(entity: Entity, feature: Feature, value: float | None, currency: str) -> str:
    """What a feature's value says, as one sentence."""
    reason = REASONS[op_of(feature)]
    if value is None:
        return f"The {label(feature)} of this {entity.name} is not known."
    words = reason.no if reason.unit == "flag" and not value else reason.words
    return words.format(
        value=shown(value, reason.unit, currency),
        window=window_words(feature.window) if feature.window else "",
        subject=f"This {entity.name}",
        subject_of=f"this {entity.name}",
    )


def usual(feature: Feature, entity: Entity, features: dict[str, float | None]) -> float | None:
    """
    What is normal for this card or merchant, from its own longest window; None where its past does not tell.

    For a window shorter than the longest, the rate of the rest of the longest window over the same length of time.
    """
    op, longest = op_of(feature), entity.windows[-1].length

    def own(wanted: Op, window: str = longest) -> float | None:
        found = (f for f in entity.features if op_of(f) is wanted and f.window == window)
        return next((features.get(f.name) for f in found), None)

    mean, count = own(Op.AMOUNT_MEAN), own(Op.COUNT)
    if op is Op.AMOUNT or (op is Op.AMOUNT_MEAN and feature.window != longest):
        return mean
    if op in (Op.COUNT, Op.AMOUNT_SUM) and feature.window != longest and count is not None:
        short, whole = duration_ms(feature.window), duration_ms(longest)
        recent = own(Op.COUNT, feature.window)
        if recent is None:
            return None
        rest = max(count - recent, 0.0) * short / (whole - short)
        return rest if op is Op.COUNT else None if mean is None else rest * mean
    return None


def contrast_words(fact: ThemeFact) -> str:
    """How rare a value is, such as "1 in 53 honest payments and 12 % of frauds are at least this high"."""
    side = "high" if fact.high else "low"
    return f"{_rarity(fact.honest_share)} honest payments and {_rarity(fact.fraud_share)} frauds are at least this {side}"


def _rarity(share: float) -> str:
    if share == 0:
        return "none of the sampled"
    if share >= 0.1:
        return f"{share * 100:.0f} % of"
    return f"1 in {1 / share:,.0f}"
