"""
Reference implementation of the features in plain Python: slow, and written from their definitions, not from the kernels.

Every arrival is kept in a list, and each feature filters that list anew. The limits of an engine with bounded state are
conditions of the filter (``ExactKey.visible``, ``BucketedKey.window``). Amounts and counts are
exact rationals, rounded once.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction

from msgspec import structs

from core.messages import Channel, Label, RecentTransaction, Transaction
from core.money import minor_per_major
from models.features.columns import Mark
from models.features.ops import StateKind
from models.features.spec import Entity, FeatureSpec

NAN = float("nan")
UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
EARTH_RADIUS_KM = 6371.0088


def milliseconds(text: str) -> int:
    return int(text[:-1]) * UNITS[text[-1]]


@dataclass(frozen=True)
class Arrival:
    """One arrival, with its amount converted to the currency of the spec."""

    arrival: int
    transaction: Transaction
    amount: int | None
    low: bool
    night: bool
    unusual: bool = False

    @property
    def time(self) -> int:
        return self.transaction.event_time

    @property
    def rank(self) -> tuple[int, int]:
        return self.time, self.arrival


@dataclass
class Row:
    """Result for one transaction: features in spec order, whether it is a duplicate, and the card's earlier transactions."""

    features: list[float]
    duplicate: bool
    recent: tuple[RecentTransaction, ...]
    unusual: bool = False
    late: bool = False
    reused: bool = False

    @property
    def marks(self) -> int:
        return Mark.UNUSUAL * self.unusual | Mark.LATE * self.late | Mark.REUSED * self.reused


def named(message: Transaction | Label) -> tuple[str, str]:
    """Return the identity that a label shares with its transaction."""
    return message.card_id, message.transaction_id


def content(transaction: Transaction) -> Transaction:
    """Return the transaction without the fields that duplicate detection ignores."""
    placed = transaction.lat is not None and transaction.lon is not None
    place = {} if placed else {"lat": None, "lon": None}
    return structs.replace(transaction, merchant_name=None, ip=None, memo=None, **place)


def ratio(part: int | Fraction, whole: int | Fraction) -> float:
    return float(Fraction(part) / Fraction(whole)) if whole else NAN


def days_since(now: int, times: list[int], op: str) -> float:
    if not times:
        return NAN
    return ratio(now - (min(times) if op.startswith("first") else max(times)), UNITS["d"])


def share(members: list[Arrival], holds) -> float:
    return ratio(sum(1 for past in members if holds(past)), len(members))


def instant(event_time: int) -> datetime:
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=event_time)


def kilometres(here: tuple[float, float], there: tuple[float, float]) -> float:
    """Great-circle distance as the angle between two unit vectors."""

    def unit(place: tuple[float, float]) -> tuple[float, float, float]:
        lat, lon = math.radians(place[0]), math.radians(place[1])
        return math.cos(lat) * math.cos(lon), math.cos(lat) * math.sin(lon), math.sin(lat)

    (a, b, c), (x, y, z) = unit(here), unit(there)
    cross = math.sqrt((b * z - c * y) ** 2 + (c * x - a * z) ** 2 + (a * y - b * x) ** 2)
    return EARTH_RADIUS_KM * math.atan2(cross, a * x + b * y + c * z)


def retention_of(entity: Entity) -> int:
    """Return how long an entity's state can affect features, in ms."""
    return max(milliseconds(w.length) for w in entity.windows) + milliseconds(entity.delay) + milliseconds(entity.lateness)


@dataclass
class Report:
    """A fraud label that added information, and the time it was retracted."""

    label: Label
    arrival: int
    retracted: float = math.inf


class Reports:
    """The fraud labels of one key."""

    def __init__(self, entity: Entity) -> None:
        self.history = entity.history
        self.retention = retention_of(entity)
        self.held: list[Report] = []
        self.arrivals = 0

    def add(self, label: Label) -> None:
        self.arrivals += 1
        same = [report for report in self.held if named(report.label) == named(label)]
        if not label.fraud:
            for report in same:
                if report.label.label_time < label.label_time:
                    report.retracted = min(report.retracted, label.label_time)
        elif all(
            report.retracted <= label.label_time or report.label.label_time < label.label_time - self.retention for report in same
        ):
            self.held.append(Report(label, self.arrivals))
            self.held.sort(key=lambda report: (report.label.label_time, report.arrival))
            del self.held[: -2 * self.history]

    def known(self, now: int, own: Transaction) -> list[Label]:
        """Return the fraud labels in effect at ``now``: known and not retracted by then, and not about ``own`` itself."""
        known = [report for report in self.held if report.label.label_time <= now]
        return [report.label for report in known[-self.history :] if now < report.retracted and named(report.label) != named(own)]

    def newest(self) -> int | None:
        return self.held[-1].label.label_time if self.held else None

    def forget_before(self, oldest: int) -> None:
        self.held = [report for report in self.held if report.label.label_time >= oldest]


class ExactKey:
    """One key of an exact entity, with every arrival for that key."""

    def __init__(self, spec: FeatureSpec, entity: Entity) -> None:
        self.spec, self.entity = spec, entity
        self.arrived: list[Arrival] = []
        self.reports = Reports(entity)
        self.major = minor_per_major(spec.currency)
        self.delay = milliseconds(entity.delay)
        self.longest = max(milliseconds(window.length) for window in entity.windows)
        self.retention = retention_of(entity)

    def visible(self, newest: int | None) -> list[Arrival]:
        """Return the arrivals that a bounded engine still holds, oldest first: the newest ``history`` within the retention."""
        if newest is None:
            return []
        ranked = sorted(self.arrived, key=lambda past: past.rank)[-self.entity.history :]
        return [past for past in ranked if past.time > newest - self.retention]

    def newest(self) -> int | None:
        return max((past.time for past in self.arrived), default=None)

    def forget(self) -> None:
        self.arrived.clear()

    def update(self, current: Arrival, recent: int) -> Row:
        count = len(self.entity.features)
        of_id = [past for past in self.visible(self.newest()) if named(past.transaction) == named(current.transaction)]
        if any(content(past.transaction) == content(current.transaction) for past in of_id):
            return Row([NAN] * count, True, ())
        visible = self.visible(max(current.time, self.newest() or current.time))
        row = [self._feature(f.op, milliseconds(f.window) if f.window else 0, current, visible) for f in self.entity.features]
        if self.entity is self.spec.entities[0] and any("normal" in feature.op for feature in self.entity.features):
            normal = self._normal(current, visible)
            unusual = current.amount is not None and current.amount > Fraction(self.spec.unusual_ratio) * normal
            current = replace(current, unusual=unusual)
        before = [past for past in visible if past.time <= current.time]
        self.arrived.append(current)
        past = tuple(as_recent(past, current) for past in before[max(0, len(before) - recent) :])
        return Row(row, False, past, current.unusual, reused=bool(of_id))

    def _paid(self, current: Arrival, visible: list[Arrival]) -> list[int]:
        """Return the known amounts within the longest window, oldest first."""
        end = current.time - self.delay
        return [past.amount for past in visible if end - self.longest < past.time <= end and past.amount is not None]

    def _normal(self, current: Arrival, visible: list[Arrival]) -> Fraction:
        last = self._paid(current, visible)[-51:]
        weight = Fraction(self.spec.normal_weight)
        middle = statistics.median_low(last) if last else 0
        return (len(last) * middle + weight * self.spec.normal_amount) / (len(last) + weight)

    def _fraud_times(self, op: str, current: Arrival, visible: list[Arrival], begin: int, end: int) -> list[int]:
        """Return event times of known frauds in a window; ``usual`` ops count only visible transactions that were not unusual."""
        usual = {(named(past.transaction), past.time) for past in visible if not past.unusual}
        return [
            label.event_time
            for label in self.reports.known(current.time, current.transaction)
            if begin < label.event_time <= end and ("usual" not in op or (named(label), label.event_time) in usual)
        ]

    def _feature(self, op: str, length: int, current: Arrival, visible: list[Arrival]) -> float:
        own = of_itself(op, current, self.major)
        if own is not None:
            return own
        t = current.time
        end = t - self.delay

        def window(length: int) -> list[Arrival]:
            return [past for past in visible if end - length < past.time <= end]

        earlier = window(length)
        counted = [*earlier, current] if self.delay == 0 else earlier
        paid = [past.amount for past in earlier if past.amount is not None]
        paid_counted = [past.amount for past in counted if past.amount is not None]
        match op:
            case "count":
                return float(len(counted))
            case "amount_sum":
                return ratio(sum(paid_counted), self.major)
            case "amount_mean":
                return ratio(sum(paid_counted), self.major * len(paid_counted))
            case "amount_max":
                return ratio(max(paid_counted), self.major) if paid_counted else NAN
            case "low_count":
                return float(sum(past.low for past in counted))
            case "low_share":
                return share(counted, lambda past: past.low)
            case "amount_ratio":
                return NAN if current.amount is None else ratio(current.amount * len(paid), sum(paid))
            case "amount_to_max":
                return NAN if current.amount is None else ratio(current.amount, max(paid, default=0))
            case "amount_zscore":
                if current.amount is None or len(paid) < 2:
                    return NAN
                mean = Fraction(sum(paid), len(paid))
                variance = sum((amount - mean) ** 2 for amount in paid) / len(paid)
                return float(current.amount - mean) / (math.sqrt(variance) + self.major)
            case "distinct_merchants":
                return float(len({past.transaction.merchant_id for past in counted}))
            case "distinct_countries":
                return float(len({past.transaction.country for past in counted} - {None}))
            case "new_merchant":
                merchants = {past.transaction.merchant_id for past in earlier}
                return float(current.transaction.merchant_id not in merchants) if earlier else NAN
            case "new_country":
                countries = {past.transaction.country for past in earlier} - {None}
                known = countries and current.transaction.country
                return float(current.transaction.country not in countries) if known else NAN
            case "category_share":
                if current.transaction.mcc is None:
                    return NAN
                categories = [past for past in earlier if past.transaction.mcc is not None]
                return share(categories, lambda past: past.transaction.mcc == current.transaction.mcc)
            case "night_share":
                return share(earlier, lambda past: past.night)
            case "online_share":
                channels = [past for past in earlier if past.transaction.channel is not None]
                return share(channels, lambda past: past.transaction.channel is Channel.ONLINE)
            case "burst":
                whole = len(window(self.longest)) + (self.delay == 0)
                return ratio(Fraction(len(counted), length), Fraction(whole, self.longest))
            case "amount_to_normal":
                return NAN if current.amount is None else float(current.amount / self._normal(current, visible))
            case "recent_to_normal":
                last = self._paid(current, visible)[-3:]
                return float(Fraction(sum(last), len(last)) / self._normal(current, visible)) if last else NAN
            case "max_to_normal":
                return float(max(paid, default=0) / self._normal(current, visible))
            case "unusual_count":
                return float(sum(past.unusual for past in earlier))
            case "first_unusual" | "last_unusual":
                times = [past.time for past in earlier if past.unusual]
                return days_since(t, times, op)
            case "fraud_count" | "usual_fraud_count":
                return float(len(self._fraud_times(op, current, visible, end - length, end)))
            case "fraud_share" | "usual_fraud_share":
                return ratio(len(self._fraud_times(op, current, visible, end - length, end)), len(counted)) if counted else 0.0
            case "first_fraud" | "last_fraud" | "first_usual_fraud" | "last_usual_fraud":
                return days_since(t, self._fraud_times(op, current, visible, end - length, end), op)
            case "last_legitimate":
                known = {named(label) for label in self.reports.known(t, current.transaction)}
                return days_since(t, [past.time for past in earlier if named(past.transaction) not in known], op)
            case "seconds_since_last":
                before = [past.time for past in visible if past.time <= t]
                return ratio(t - max(before), 1000) if before else NAN
            case "distance" | "speed":
                return self._movement(op, current)
            case "new_device":
                return self._new_device(current)
        raise AssertionError(f"the oracle does not implement the exact op {op}")

    def _movement(self, op: str, current: Arrival) -> float:
        last = max((past for past in self.arrived if place_of(past)), key=lambda past: past.rank, default=None)
        here = place_of(current)
        if last is None or here is None:
            return NAN
        gone = kilometres(place_of(last), here)
        minutes = max(1.0, abs(current.time - last.time) / 60_000)
        return gone if op == "distance" else gone / minutes * 60

    def _new_device(self, current: Arrival) -> float:
        newest_first = [past.transaction.device_id for past in reversed(self.arrived) if past.transaction.device_id is not None]
        last_four = list(dict.fromkeys(newest_first))[:4]
        device = current.transaction.device_id
        return float(device not in last_four) if device is not None and last_four else NAN


class BucketedKey:
    """One key of a bucketed entity."""

    def __init__(self, spec: FeatureSpec, entity: Entity) -> None:
        self.spec, self.entity = spec, entity
        self.arrived: list[Arrival] = []
        self.reports = Reports(entity)
        self.major = minor_per_major(spec.currency)
        self.windows = {
            window.length: (milliseconds(window.length), milliseconds(window.resolution)) for window in entity.windows
        }
        self.counted: dict[int, list[Arrival]] = {resolution: [] for _, resolution in self.windows.values()}

    def newest(self) -> int | None:
        return max((past.time for past in self.arrived), default=None)

    def forget(self) -> None:
        self.arrived.clear()
        for counted in self.counted.values():
            counted.clear()

    def window(self, name: str, t: int) -> list[Arrival]:
        """Return the arrivals in the complete buckets before the bucket of ``t``, without buckets that are no longer kept."""
        length, resolution = self.windows[name]
        kept = 1 + max(w // r for w, r in self.windows.values() if r == resolution)
        bucket_now, counted = t // resolution, self.counted[resolution]
        newest = max((past.time // resolution for past in counted), default=0)
        first = max(bucket_now - length // resolution, newest - kept + 1)
        return [past for past in counted if first <= past.time // resolution < bucket_now]

    def _count(self, current: Arrival) -> None:
        """Count an arrival at each bucket resolution, unless its bucket is no longer kept."""
        for resolution, counted in self.counted.items():
            kept = 1 + max(w // r for w, r in self.windows.values() if r == resolution)
            newest = max((past.time // resolution for past in counted), default=0)
            if current.time // resolution > newest - kept:
                counted.append(current)

    def update(self, current: Arrival, recent: int) -> Row:
        row = [self._feature(feature.op, feature.window, current) for feature in self.entity.features]
        self.arrived.append(current)
        self._count(current)
        return Row(row, False, ())

    def _feature(self, op: str, window: str, current: Arrival) -> float:
        own = of_itself(op, current, self.major)
        if own is not None:
            return own
        t = current.time
        counted = self.window(window, t)
        paid = [past.amount for past in counted if past.amount is not None]
        match op:
            case "count":
                return float(len(counted))
            case "amount_sum":
                return ratio(sum(paid), self.major)
            case "amount_mean":
                return ratio(sum(paid), self.major * len(paid))
            case "amount_ratio":
                return NAN if current.amount is None else ratio(current.amount * len(paid), sum(paid))
            case "low_count":
                return float(sum(past.low for past in counted))
            case "low_share":
                return share(counted, lambda past: past.low)
            case "fraud_reports" | "fraud_report_share":
                length = self.windows[window][0]
                reports = sum(1 for label in self.reports.known(t, current.transaction) if t - length < label.label_time <= t)
                if op == "fraud_reports":
                    return float(reports)
                prior, weight = Fraction(self.spec.fraud_prior), Fraction(self.spec.prior_weight)
                return ratio(reports + prior * weight, len(counted) + weight)
        raise AssertionError(f"the oracle does not implement the bucketed op {op}")


def place_of(past: Arrival) -> tuple[float, float] | None:
    """Return the location of the card, or None; an online purchase does not reveal it."""
    transaction = past.transaction
    if transaction.lat is None or transaction.lon is None or transaction.channel is Channel.ONLINE:
        return None
    return transaction.lat, transaction.lon


def of_itself(op: str, current: Arrival, major: int) -> float | None:
    """Return a feature computed from the transaction alone, or None if ``op`` is not such a feature."""
    when = instant(current.time)
    midnight = when.replace(hour=0, minute=0, second=0, microsecond=0)
    match op:
        case "amount":
            return NAN if current.amount is None else ratio(current.amount, major)
        case "hour":
            return ratio((when - midnight) // timedelta(milliseconds=1), 3_600_000)
        case "weekday":
            return float(when.weekday())
        case "weekend":
            return float(when.weekday() in (5, 6))
        case "night":
            return float(current.night)
        case "online":
            channel = current.transaction.channel
            return NAN if channel is None else float(channel is Channel.ONLINE)
    return None


def as_recent(past: Arrival, current: Arrival) -> RecentTransaction:
    transaction = past.transaction
    return RecentTransaction(
        event_time=past.time,
        amount=past.amount,
        mcc=transaction.mcc,
        country=transaction.country,
        channel=transaction.channel,
        same_merchant=transaction.merchant_id == current.transaction.merchant_id,
    )


class EntityOracle:
    """Oracle for one entity of a spec; it receives labels only if ``labelled`` is true."""

    def __init__(self, spec: FeatureSpec, entity: Entity) -> None:
        self.spec, self.entity = spec, entity
        self.keys: dict[str, ExactKey | BucketedKey] = {}
        self.labelled = any("fraud" in feature.op or feature.op == "last_legitimate" for feature in entity.features)
        self.arrivals = 0
        self.watermark: int | None = None
        self.lateness = milliseconds(entity.lateness)
        self.retention = retention_of(entity)

    def _of(self, message: Transaction | Label) -> ExactKey | BucketedKey:
        """Return the state of the message's key, after dropping arrivals and reports that have outlived the retention."""
        name = getattr(message, self.entity.key)
        if name not in self.keys:
            self.keys[name] = (ExactKey if self.entity.state is StateKind.EXACT else BucketedKey)(self.spec, self.entity)
        key = self.keys[name]
        if self.watermark is not None:
            oldest = self.watermark - self.retention
            if (key.newest() or oldest) < oldest:
                key.forget()
            key.reports.forget_before(oldest)
        return key

    def alive(self) -> set[str]:
        """Return the keys whose state can still affect features."""
        oldest = (self.watermark or 0) - self.retention
        return {name for name, key in self.keys.items() if (key.newest() or 0) >= oldest or (key.reports.newest() or 0) >= oldest}

    def label(self, label: Label) -> None:
        self._of(label).reports.add(label)

    def transaction(self, transaction: Transaction, recent: int = 0, unusual: bool = False) -> Row:
        spec, amount = self.spec, None
        if transaction.currency == spec.currency:
            amount = transaction.amount
        elif transaction.currency in spec.rates:
            amount = round(transaction.amount * spec.rates[transaction.currency])
        self.arrivals += 1
        past = Arrival(
            arrival=self.arrivals,
            transaction=transaction,
            amount=amount,
            low=amount is not None and amount <= spec.low_amount,
            night=instant(transaction.event_time).hour <= spec.night_until,
            unusual=unusual,
        )
        before = self.watermark
        self.watermark = max(past.time, past.time if before is None else before)
        row = self._of(transaction).update(past, recent)
        row.late = before is not None and past.time < before - self.lateness
        return row


class Oracle:
    """Oracle for all entities of a spec. Duplicates found by the first entity are not passed to the others."""

    def __init__(self, spec: FeatureSpec) -> None:
        self.spec = spec
        self.entities = [EntityOracle(spec, entity) for entity in spec.entities]

    def label(self, label: Label) -> None:
        for entity in self.entities:
            if entity.labelled:
                entity.label(label)

    def transaction(self, transaction: Transaction, recent: int = 0) -> Row:
        row = self.entities[0].transaction(transaction, recent)
        if row.duplicate:
            return Row([NAN] * len(self.spec.feature_names), True, ())
        for entity in self.entities[1:]:
            row.features += entity.transaction(transaction, unusual=row.unusual).features
        return row


def rows_of(spec: FeatureSpec, stream: Iterable[Transaction | Label], recent: int = 0) -> list[Row]:
    """Return the rows of the transactions in a stream of transactions and labels, in arrival order."""
    oracle, rows = Oracle(spec), []
    for message in stream:
        if isinstance(message, Label):
            oracle.label(message)
        else:
            rows.append(oracle.transaction(message, recent))
    return rows
