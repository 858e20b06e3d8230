"""History of a card, a merchant and a device before an alert, computed from archived payments."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from core.clock import MS_PER_DAY, MS_PER_HOUR
from core.messages import Channel, Transaction
from explain.facts.categories import category_name

DAYS = 90  # length of the history from which habits are computed
LAST_PAYMENTS = 12
_EARTH_KM = 6371.0
_HOME_KM = 30.0
_MAIN_CATEGORIES = 6


class Payment(Struct, frozen=True):
    """An archived transaction: amounts in minor units, times in epoch ms."""

    transaction_id: str
    event_time: int
    merchant_id: str
    amount: int
    currency: str
    mcc: str | None = None
    merchant_name: str | None = None
    country: str | None = None
    channel: Channel | None = None
    device_id: str | None = None
    lat: float | None = None
    lon: float | None = None


class MerchantHistory(Struct, frozen=True):
    """Counts for a merchant: payments, cards that made them, frauds reported, and cards with a reported fraud."""

    payments: int
    cards: int
    frauds: int
    cards_with_fraud: int


class DeviceHistory(Struct, frozen=True):
    """Counts for a device: payments, and cards that made them."""

    payments: int
    cards: int


class DeviceUse(Struct, frozen=True):
    """A card's use of a device: the number of payments, and the times of the first and the last one (epoch ms)."""

    device_id: str
    payments: int
    first: int
    last: int


class Place(Struct, frozen=True):
    """
    A point in degrees.

    ``share`` is the share of the card's payments within 30 km of the point. It counts only payments that have a position and are
    not online.
    """

    lat: float
    lon: float
    share: float


class CategoryShare(Struct, frozen=True):
    """A merchant category by name and its share of a card's payments."""

    name: str
    share: float


class Habits(Struct, frozen=True):
    """
    A card's usual payment behaviour.

    ``amounts`` is the number of payments in ``currency``. ``median`` and ``high`` (the 95th percentile) are computed from the
    amounts of these payments, in minor units. ``online`` is the share of online payments among those with a known channel.
    ``hours`` are the shares of payments in the four quarters of the day, starting at midnight UTC. All shares are in [0, 1].
    """

    payments: int
    days: float
    currency: str
    amounts: int
    median: int | None
    high: int | None
    hours: tuple[float, float, float, float]
    online: float
    categories: tuple[CategoryShare, ...]
    home: Place | None
    devices: tuple[DeviceUse, ...]


class LastPayment(Struct, frozen=True):
    """
    One of a card's last payments.

    ``category`` is the name of the merchant category, and ``distance`` is in km from the card's home area. ``known_merchant`` and
    ``known_device`` (None without a device) say whether the card had used the merchant and the device earlier in the last 90
    days.
    """

    payment: Payment
    category: str
    distance: float | None
    known_merchant: bool
    known_device: bool | None


class MerchantForCard(Struct, frozen=True):
    """
    A card's earlier use of a merchant.

    ``payments`` is the number of payments, ``largest`` the largest amount in the alert's currency, and ``first`` the time of the
    first payment (epoch ms).
    """

    payments: int
    largest: int | None
    first: int | None


class CardHistory(Struct, frozen=True):
    """
    The archived history of an alert's card, merchant and device before the alert.

    ``days`` is the length of this history: 90, or fewer if the archive is younger. ``complete`` is False if the archive lacks the
    alert's own transaction; other payments may then be missing too. ``usual_rank`` is the share of the card's earlier amounts in
    the same currency that are below the alert's amount.
    """

    complete: bool
    days: int
    habits: Habits
    usual_rank: float | None
    here: MerchantForCard
    distance: float | None
    last: tuple[LastPayment, ...]
    device: DeviceUse | None
    merchant: MerchantHistory
    device_at_large: DeviceHistory | None


class History(Protocol):
    """A store of past payments. Periods include ``since`` and exclude ``before``; both are event times in epoch ms."""

    def oldest_written_at(self) -> int | None:
        """Return the time at which the oldest stored payment was written, in epoch ms; None if the store is empty."""

    def contains(self, transaction: Transaction) -> bool:
        """Return whether the store holds a transaction."""

    def payments_of_card(self, card_id: str, since: int, before: int) -> list[Payment]:
        """Return a card's payments, oldest first."""

    def merchant(self, merchant_id: str, since: int, before: int) -> MerchantHistory:
        """Return the counts of a merchant's payments and reported frauds."""

    def device(self, device_id: str, since: int, before: int) -> DeviceHistory:
        """Return the counts of a device's payments and cards."""


def card_history(transaction: Transaction, history: History) -> CardHistory:
    """Return the history of a transaction's card, merchant and device in the 90 days before the transaction."""
    since, before = transaction.event_time - DAYS * MS_PER_DAY, transaction.event_time
    payments = history.payments_of_card(transaction.card_id, since, before)
    habits = habits_of(payments, transaction.currency, before)
    begins = history.oldest_written_at()
    smaller = [one.amount < transaction.amount for one in payments if one.currency == transaction.currency]
    here = [one for one in payments if one.merchant_id == transaction.merchant_id]
    return CardHistory(
        complete=history.contains(transaction),
        days=_days_covered(since, before, begins, payments),
        habits=habits,
        usual_rank=sum(smaller) / len(smaller) if smaller else None,
        here=MerchantForCard(
            payments=len(here),
            largest=max((one.amount for one in here if one.currency == transaction.currency), default=None),
            first=here[0].event_time if here else None,
        ),
        distance=None if transaction.channel is Channel.ONLINE else _from(habits.home, transaction.lat, transaction.lon),
        last=last_payments(payments, habits.home),
        device=next((use for use in habits.devices if use.device_id == transaction.device_id), None),
        merchant=history.merchant(transaction.merchant_id, since, before),
        device_at_large=history.device(transaction.device_id, since, before) if transaction.device_id else None,
    )


def _days_covered(since: int, before: int, begins: int | None, payments: Sequence[Payment]) -> int:
    """
    Return the number of days before an alert that the archive covers, at most 90; 0 if the archive is empty.

    The covered time starts when the oldest record was written. If the card has an older payment, because past payments were
    written to the archive later, it starts at that payment.
    """
    if begins is None:
        return 0
    oldest = min(begins, payments[0].event_time if payments else begins, before)
    return math.ceil((before - max(since, oldest)) / MS_PER_DAY)


def habits_of(payments: Sequence[Payment], currency: str, before: int) -> Habits:
    """
    Return a card's habits from its payments (oldest first) before a time (epoch ms).

    Statistics of amounts cover only payments in ``currency``.
    """
    amounts = sorted(one.amount for one in payments if one.currency == currency)
    quarters = Counter(one.event_time // (6 * MS_PER_HOUR) % 4 for one in payments)
    categories = Counter(category_name(one.mcc) for one in payments if one.mcc)
    channels = [one.channel for one in payments if one.channel is not None]
    count = len(payments)
    return Habits(
        payments=count,
        days=(before - payments[0].event_time) / MS_PER_DAY if payments else 0.0,
        currency=currency,
        amounts=len(amounts),
        median=_quantile(amounts, 0.5),
        high=_quantile(amounts, 0.95),
        hours=(quarters[0] / count, quarters[1] / count, quarters[2] / count, quarters[3] / count) if count else (0.0,) * 4,
        online=sum(channel is Channel.ONLINE for channel in channels) / len(channels) if channels else 0.0,
        categories=tuple(CategoryShare(name, n / count) for name, n in categories.most_common(_MAIN_CATEGORIES)),
        home=home_area(payments),
        devices=_devices(payments),
    )


def home_area(payments: Sequence[Payment]) -> Place | None:
    """
    Return the place where a card pays most often, or None if no payment can be used.

    Only payments that have a position and are not online are used. Positions are counted in cells of a quarter of a degree; the
    place is the mean position in the fullest cell.
    """
    places = [
        (one.lat, one.lon)
        for one in payments
        if one.lat is not None and one.lon is not None and one.channel is not Channel.ONLINE
    ]
    if not places:
        return None
    cells = Counter((round(lat * 4), round(lon * 4)) for lat, lon in places)
    (fullest, _) = min(cells.items(), key=lambda cell: (-cell[1], cell[0]))
    inside = [(lat, lon) for lat, lon in places if (round(lat * 4), round(lon * 4)) == fullest]
    lat, lon = (sum(values) / len(inside) for values in zip(*inside, strict=True))
    near = sum(kilometres(lat, lon, *place) <= _HOME_KM for place in places)
    return Place(lat, lon, near / len(places))


def last_payments(payments: Sequence[Payment], home: Place | None) -> tuple[LastPayment, ...]:
    """Return a card's newest twelve payments, newest first. ``payments`` are oldest first."""
    merchants: set[str] = set()
    devices: set[str] = set()
    rows = []
    for place, one in enumerate(payments):
        if place >= len(payments) - LAST_PAYMENTS:
            rows.append(
                LastPayment(
                    payment=one,
                    category=category_name(one.mcc),
                    distance=_from(home, one.lat, one.lon),
                    known_merchant=one.merchant_id in merchants,
                    known_device=one.device_id in devices if one.device_id else None,
                )
            )
        merchants.add(one.merchant_id)
        if one.device_id:
            devices.add(one.device_id)
    return tuple(reversed(rows))


def kilometres(lat: float, lon: float, other_lat: float, other_lon: float) -> float:
    """Return the great-circle distance in km between two points in degrees, by the haversine formula."""
    a, b = math.radians(lat), math.radians(other_lat)
    h = math.sin((b - a) / 2) ** 2 + math.cos(a) * math.cos(b) * math.sin(math.radians(other_lon - lon) / 2) ** 2
    return 2 * _EARTH_KM * math.asin(min(1.0, math.sqrt(h)))


def _from(home: Place | None, lat: float | None, lon: float | None) -> float | None:
    return None if home is None or lat is None or lon is None else kilometres(home.lat, home.lon, lat, lon)


def _devices(payments: Sequence[Payment]) -> tuple[DeviceUse, ...]:
    """Return the devices that a card used, most used first."""
    times: dict[str, list[int]] = {}
    for one in payments:
        if one.device_id:
            times.setdefault(one.device_id, []).append(one.event_time)
    uses = [DeviceUse(device, len(used), used[0], used[-1]) for device, used in times.items()]
    return tuple(sorted(uses, key=lambda use: (-use.payments, use.device_id)))


def _quantile(amounts: Sequence[int], share: float) -> int | None:
    """
    Return the quantile ``share`` of sorted amounts; None if there are no amounts.

    The quantile is the smallest amount such that at least this share of the amounts is equal to it or smaller.
    """
    return amounts[max(0, math.ceil(share * len(amounts)) - 1)] if amounts else None
