"""
Feature specs: entities, windows and aggregates, declared once and stored in the model bundle.

An entity is a key of the transaction: the card or the merchant. No built-in spec has an entity for the device yet. The state of
an entity has one of two kinds:

``exact``
    keeps the key's newest transactions, at most ``history`` of them and none older than the longest window plus ``delay``
    plus ``lateness``, counted back from the key's newest event time. A window of length w seen from time t is
    (t - delay - w, t - delay]; it includes the transaction itself when ``delay`` is zero.
``bucketed``
    keeps counts and amounts in buckets of each window's ``resolution``, for keys with too many transactions to store each one.
    A window covers the complete buckets before the bucket of t. Simultaneous events from different partitions may therefore
    arrive in any order without changing a feature.

Fraud is known from labels. A label counts at time t only if its ``label_time`` is not after t.
"""

import hashlib
import math

import msgspec
from msgspec import Struct

from core.clock import MS_PER_DAY, MS_PER_HOUR, duration_ms
from core.errors import InputError
from core.event_time import AHEAD_MS
from models.features.ops import ALLOWED_OPS, CALENDAR_OPS, EVENT_OPS, LABEL_OPS, WINDOWLESS_OPS, Op, StateKind

_LOWEST_RATE, _HIGHEST_RATE = 1e-9, 1e9
_LONGEST_HISTORY, _LONGEST_WINDOW = 8_192, 3_660 * MS_PER_DAY


class Feature(Struct, frozen=True, omit_defaults=True):
    """One column of X: an operation over one of its entity's windows."""

    name: str
    op: str
    window: str = ""


class Window(Struct, frozen=True, omit_defaults=True):
    """A window's length and, for bucketed state, the resolution of its buckets."""

    length: str
    resolution: str = ""


class Entity(Struct, frozen=True, omit_defaults=True):
    """A key of the transaction, its state and its features."""

    name: str
    key: str
    state: StateKind
    windows: tuple[Window, ...]
    features: tuple[Feature, ...]
    delay: str = "0s"
    lateness: str = "1d"
    history: int = 512

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of the columns this entity computes, in order."""
        return tuple(feature.name for feature in self.features)

    @property
    def labelled(self) -> bool:
        """Whether any feature uses labels."""
        return any(op_of(feature) in LABEL_OPS for feature in self.features)


class FeatureSpec(Struct, frozen=True, omit_defaults=True):
    """
    All features that are computed for a transaction. ``version`` contains a hash of the content.

    A key's normal amount is the median of its last 51 amounts within the longest window, averaged with the prior
    ``normal_amount`` (minor units), which counts as ``normal_weight`` amounts. An amount over ``unusual_ratio`` times the
    card's normal amount is unusual.
    """

    name: str
    currency: str
    entities: tuple[Entity, ...]
    rates: dict[str, float] = {}
    low_amount: int = 500
    night_until: int = 5
    fraud_prior: float = 0.005
    prior_weight: float = 20.0
    normal_amount: int = 5000
    normal_weight: float = 3.0
    unusual_ratio: float = 2.0

    @property
    def calendar_features(self) -> frozenset[str]:
        """Names of the features that depend only on the time of a transaction. Drift is not measured for them."""
        return frozenset(
            feature.name for entity in self.entities for feature in entity.features if op_of(feature) in CALENDAR_OPS
        )

    @property
    def feature_names(self) -> tuple[str, ...]:
        """Names of all columns of X, in order."""
        return tuple(name for entity in self.entities for name in entity.feature_names)

    @property
    def version(self) -> str:
        """Name and content hash, such as ``default-3f9c2a41``."""
        return f"{self.name}-{hashlib.sha256(encode_spec(self)).hexdigest()[:8]}"

    def entity(self, name: str) -> Entity:
        """
        Return the entity with this name.

        Raises:
            InputError: if the spec has no entity of that name.
        """
        for entity in self.entities:
            if entity.name == name:
                return entity
        raise InputError(f"feature spec {self.name} has no entity {name!r}")


def op_of(feature: Feature) -> Op:
    """Return the operation of a feature."""
    return Op[feature.op.upper()]


def encode_spec(spec: FeatureSpec) -> bytes:
    """Return the spec as canonical JSON."""
    return msgspec.json.encode(spec, order="sorted")


def decode_spec(raw: bytes) -> FeatureSpec:
    """
    Decode a spec from JSON and check it.

    Raises:
        InputError: if it is not a valid spec, for example because an entity cannot compute one of its features.
    """
    try:
        spec = msgspec.json.decode(raw, type=FeatureSpec)
    except msgspec.MsgspecError as error:
        raise InputError(f"not a feature spec: {error}") from None
    check_spec(spec)
    for entity in spec.entities:
        if duration_ms(entity.lateness) <= AHEAD_MS:  # else an accepted event from the future could make current events late
            raise InputError(
                f"entity {entity.name}: lateness must be longer than {AHEAD_MS // MS_PER_HOUR} h, the tolerance for producers' clocks"
            )
    return spec


def check_spec(spec: FeatureSpec) -> None:
    """
    Check that a spec can be computed.

    Raises:
        InputError: if it cannot; the message names the invalid entity, feature or rate.
    """
    for name in ("normal_amount", "normal_weight", "prior_weight", "unusual_ratio"):
        value = getattr(spec, name)
        if not 0 < value < math.inf:  # the kernels divide by these
            raise InputError(f"feature spec {spec.name}: {name} must be above zero and finite, not {value}")
    names = spec.feature_names
    if len(set(names)) != len(names):
        raise InputError(f"feature spec {spec.name}: feature names must be unique")
    if wrong := [currency for currency, rate in spec.rates.items() if not _LOWEST_RATE <= rate <= _HIGHEST_RATE]:
        raise InputError(
            f"feature spec {spec.name}: the exchange rate of {wrong[0]} must be from {_LOWEST_RATE:g} to {_HIGHEST_RATE:g}"
        )
    for entity in spec.entities:
        if not 1 <= entity.history <= _LONGEST_HISTORY:
            raise InputError(f"entity {entity.name}: history must be from 1 to {_LONGEST_HISTORY:,} transactions")
        if any(not 0 < duration_ms(window.length) <= _LONGEST_WINDOW for window in entity.windows):
            raise InputError(
                f"entity {entity.name}: windows must be longer than zero and at most {_LONGEST_WINDOW // MS_PER_DAY} days"
            )
    for entity in spec.entities:
        lengths = [window.length for window in entity.windows]
        if sorted(lengths, key=duration_ms) != lengths:
            raise InputError(f"entity {entity.name}: list the windows from short to long")
        for feature in entity.features:
            if feature.op.upper() not in Op.__members__ or op_of(feature) not in ALLOWED_OPS[entity.state]:
                raise InputError(f"feature {feature.name}: {entity.state} state has no operation {feature.op!r}")
            if (op_of(feature) in WINDOWLESS_OPS) == bool(feature.window):
                raise InputError(f"feature {feature.name}: operation {feature.op} takes {'no' if feature.window else 'a'} window")
            if feature.window and feature.window not in lengths:
                raise InputError(f"feature {feature.name}: entity {entity.name} has no window {feature.window!r}")


def _features(entity: str, *wanted: str) -> tuple[Feature, ...]:
    """Return features from shorthand such as ``count:1h,1d`` (an operation over windows) or ``speed``."""
    made = []
    for word in wanted:
        op, _, windows = word.partition(":")
        made += [Feature(f"{entity}_{op}_{window}", op, window) for window in windows.split(",") if window]
        if not windows:
            made.append(Feature(op if Op[op.upper()] in EVENT_OPS else f"{entity}_{op}", op))
    return tuple(made)


def default_spec(currency: str = "EUR") -> FeatureSpec:
    """
    Return the default spec of ``whyflag train``: velocity, amounts, places, devices and habits of the card; traffic and fraud
    reports of the merchant.
    """
    card = Entity(
        name="card",
        key="card_id",
        state=StateKind.EXACT,
        windows=(Window("1h"), Window("1d"), Window("7d"), Window("30d")),
        features=_features(
            "card",
            *("amount", "hour", "weekday", "night", "online"),
            "count:1h,1d,7d,30d",
            "amount_sum:1h,1d,7d",
            "amount_mean:7d,30d",
            "amount_max:1d,30d",
            "amount_ratio:30d",
            "amount_zscore:30d",
            "amount_to_max:30d",
            "low_count:1h,1d",
            "distinct_merchants:1h,1d,7d",
            "distinct_countries:1d",
            "burst:1h,1d",
            "new_merchant:30d",
            "new_country:30d",
            "category_share:30d",
            "night_share:30d",
            "online_share:30d",
            *("seconds_since_last", "distance", "speed", "new_device"),
            *("amount_to_normal", "recent_to_normal"),
            "max_to_normal:7d",
            "unusual_count:7d",
        ),
    )
    merchant = Entity(
        name="merchant",
        key="merchant_id",
        state=StateKind.BUCKETED,
        windows=(Window("1h", "5m"), Window("1d", "1h"), Window("7d", "1d"), Window("30d", "1d")),
        history=1024,
        features=_features(
            "merchant",
            "count:1h,1d,30d",
            "amount_mean:30d",
            "amount_ratio:30d",
            "low_share:1h,1d",
            "fraud_reports:7d,30d",
            "fraud_report_share:30d",
        ),
    )
    return FeatureSpec(name="default", currency=currency, entities=(card, merchant))


def handbook_spec(currency: str = "EUR") -> FeatureSpec:
    """Return the 15 features of the Fraud Detection Handbook (Le Borgne et al., chapter 3), under the book's names."""
    days = ("1d", "7d", "30d")
    customer = [Feature("TX_AMOUNT", "amount"), Feature("TX_DURING_WEEKEND", "weekend"), Feature("TX_DURING_NIGHT", "night")]
    terminal = []
    for day in days:
        book = f"{day[:-1]}DAY_WINDOW"
        customer.append(Feature(f"CUSTOMER_ID_NB_TX_{book}", "count", day))
        customer.append(Feature(f"CUSTOMER_ID_AVG_AMOUNT_{book}", "amount_mean", day))
        terminal.append(Feature(f"TERMINAL_ID_NB_TX_{book}", "count", day))
        terminal.append(Feature(f"TERMINAL_ID_RISK_{book}", "fraud_share", day))
    windows = tuple(Window(day) for day in days)
    return FeatureSpec(
        name="handbook",
        currency=currency,
        night_until=6,
        entities=(
            Entity("card", "card_id", StateKind.EXACT, windows, tuple(customer)),
            Entity("merchant", "merchant_id", StateKind.EXACT, windows, tuple(terminal), delay="7d", history=4096),
        ),
    )


def compromise_spec(currency: str = "EUR") -> FeatureSpec:
    """
    Return a spec for compromised terminals of small merchants and for changes in a card's spending.

    The features describe the card's normal amount, how long the card has deviated from it, and how long a merchant has had
    frauds that the amount does not explain. The spec was made for the handbook's data.
    """
    card = Entity(
        name="card",
        key="card_id",
        state=StateKind.EXACT,
        windows=(Window("7d"), Window("14d"), Window("90d")),
        features=_features(
            "card",
            *("amount", "amount_to_normal", "recent_to_normal"),
            "amount_zscore:90d",
            "count:90d",
            "amount_mean:90d",
            "max_to_normal:7d,14d",
            "unusual_count:14d",
            "first_unusual:14d",
            "last_unusual:14d",
        ),
    )
    merchant = Entity(
        name="merchant",
        key="merchant_id",
        state=StateKind.EXACT,
        windows=(Window("7d"), Window("28d"), Window("42d")),
        delay="7d",
        history=4096,
        features=_features(
            "merchant",
            "count:28d",
            "fraud_share:7d,28d",
            "first_fraud:42d",
            "last_fraud:42d",
            "usual_fraud_count:28d",
            "usual_fraud_share:28d",
            "first_usual_fraud:42d",
            "last_usual_fraud:42d",
            "last_legitimate:42d",
        ),
    )
    return FeatureSpec(name="compromise", currency=currency, entities=(card, merchant))


SPECS = {"default": default_spec, "handbook": handbook_spec, "compromise": compromise_spec}
