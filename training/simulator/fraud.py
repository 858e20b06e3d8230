"""
Fraud typologies: six ways to misuse cards, each of which overlaps with honest behaviour.

Each typology is a function that returns the events of a number of incidents: customer, time, merchant and amount. The typology
is written to the truth table only, never to a table that a model may read.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from training.simulator.population import CATEGORIES, CITIES, MS_PER_DAY, Customers, Floats, Ints, Merchants

_MINUTE = 60_000
_HOUR = 60 * _MINUTE
_ACCOUNTS_OF_A_RING = 4


class Events(Struct, frozen=True):
    """n raw transactions. ``device`` is 0 for no device, 1 or 2 for the customer's own, higher for a fraudster's device."""

    customer: Ints
    time: Ints
    merchant: Ints
    amount: Floats
    online: npt.NDArray[np.bool_]
    device: Ints
    typology: Ints

    @staticmethod
    def joined(parts: "list[Events]") -> "Events":
        """Return all events of several sets."""
        return Events(*(np.concatenate([getattr(part, name) for part in parts]) for name in Events.__struct_fields__))


class Scene(Struct, frozen=True):
    """Input of a typology: random generator, customers, merchants, and the time span (epoch ms)."""

    rng: np.random.Generator
    customers: Customers
    merchants: Merchants
    begin: int
    end: int

    def victims(self, count: int) -> Ints:
        """Draw customers with probabilities proportional to their transaction rates."""
        share = self.customers.rate / self.customers.rate.sum()
        return self.rng.choice(len(share), count, p=share)

    def moments(self, count: int) -> Ints:
        """Draw times uniformly from the time span."""
        return self.rng.integers(self.begin, self.end, count)

    def spread(self, sizes: Ints) -> tuple[Ints, Ints]:
        """Return the incident of every event and the event's position in it, for incidents of given sizes."""
        incident = np.repeat(np.arange(len(sizes)), sizes)
        return incident, np.arange(len(incident)) - np.repeat(np.cumsum(sizes) - sizes, sizes)

    def times(self, incident: Ints, place: Ints, start: Ints, mean_gap: Floats) -> Ints:
        """
        Draw the times of events (epoch ms).

        The first event of an incident happens at ``start``. The gaps between consecutive events are exponential with the
        mean ``mean_gap`` (ms). ``start`` and ``mean_gap`` have one value per event, the same for all events of an incident.
        """
        gaps = np.where(place == 0, 0.0, self.rng.exponential(1.0, len(incident)) * mean_gap)
        total = np.cumsum(gaps)
        first = np.flatnonzero(place == 0)
        whole: Ints = start + (total - total[first][incident]).astype(np.int64)
        return whole

    def amounts(self, merchant: Ints, factor: float) -> Floats:
        """Draw amounts from the distribution of each merchant's category, times a factor."""
        category = self.merchants.category[merchant]
        median = np.array([c.median for c in CATEGORIES])[category]
        sigma = np.array([c.sigma for c in CATEGORIES])[category]
        usual: Floats = median * self.merchants.price[merchant] * np.exp(self.rng.normal(0, 1, len(merchant)) * sigma)
        return usual * factor

    def shops(self, names: tuple[str, ...], online: npt.NDArray[np.bool_], city: Ints) -> Ints:
        """Choose merchants of the named categories."""
        wanted = np.array([i for i, c in enumerate(CATEGORIES) if c.name in names])
        category = wanted[self.rng.integers(0, len(wanted), len(city))]
        return self.merchants.choose(category, online, city, self.rng.random(len(city)))


def card_testing(scene: Scene, incidents: int) -> Events:
    """Simulate card testing: small online payments with a stolen number within an hour, then one large purchase."""
    rng = scene.rng
    sizes = rng.integers(4, 16, incidents)
    incident, place = scene.spread(sizes)
    customer, start = scene.victims(incidents)[incident], scene.moments(incidents)[incident]
    n = len(incident)
    online = np.ones(n, np.bool_)
    favourite = scene.shops(("Games", "Streaming", "Marketplace"), np.ones(incidents, np.bool_), np.zeros(incidents, np.int64))
    last = place == sizes[incident] - 1
    cash_out = scene.shops(("Electronics", "Marketplace", "Exchange"), online, np.zeros(n, np.int64))
    merchant = np.where(last, cash_out, favourite[incident])
    amount = np.where(last, scene.amounts(merchant, 2.0), rng.uniform(0.5, 6.0, n))
    time = scene.times(incident, place, start, rng.uniform(0.5, 6.0, incidents)[incident] * _MINUTE)
    return _events(customer, time, merchant, amount, online, 3 + customer)


def stolen_card(scene: Scene, incidents: int) -> Events:
    """Simulate a stolen card: fast purchases above the usual amounts in shops of the owner's city, until the card is blocked."""
    rng = scene.rng
    incident, place = scene.spread(rng.integers(3, 11, incidents))
    customer, start = scene.victims(incidents)[incident], scene.moments(incidents)[incident]
    time = scene.times(incident, place, start, rng.uniform(8, 70, incidents)[incident] * _MINUTE)
    city = scene.customers.where(customer, time)
    online = np.zeros(len(time), np.bool_)
    merchant = scene.shops(("Electronics", "Department Store", "Fuel", "Jeweller", "Clothing", "Grocer"), online, city)
    return _events(customer, time, merchant, scene.amounts(merchant, 1.7), online, np.zeros(len(time), np.int64))


def compromised_terminal(scene: Scene, incidents: int) -> Events:
    """Simulate a terminal that skims cards: for up to four weeks, copies of its customers' cards are used there."""
    rng, merchants = scene.rng, scene.merchants
    in_shops = np.array([c.online < 1 for c in CATEGORIES])[merchants.category]
    present = np.flatnonzero(~merchants.online & in_shops)
    terminal = present[rng.integers(0, len(present), incidents)]
    incident, _ = scene.spread(rng.integers(6, 30, incidents))
    start = scene.moments(incidents)[incident]
    time = start + rng.integers(0, 28 * MS_PER_DAY, len(incident))
    merchant = terminal[incident]
    nearby = scene.customers.city
    order = np.argsort(nearby, kind="stable")
    low = np.searchsorted(nearby[order], merchants.city[merchant], side="left")
    high = np.searchsorted(nearby[order], merchants.city[merchant], side="right")
    pick = np.minimum(low + (rng.random(len(merchant)) * (high - low)).astype(np.int64), len(order) - 1)
    customer = np.where(high > low, order[pick], scene.victims(len(merchant)))
    online = np.zeros(len(time), np.bool_)
    return _events(customer, time, merchant, scene.amounts(merchant, 1.25), online, np.zeros(len(time), np.int64))


def account_takeover(scene: Scene, incidents: int) -> Events:
    """
    Simulate account takeover: expensive online purchases over a day or two from a fraudster's device.

    A ring of fraudsters uses its device on several accounts.
    """
    rng = scene.rng
    incident, place = scene.spread(rng.integers(2, 8, incidents))
    customer, start = scene.victims(incidents)[incident], scene.moments(incidents)[incident]
    time = scene.times(incident, place, start, rng.uniform(0.2, 9, incidents)[incident] * _HOUR)
    online = np.ones(len(time), np.bool_)
    merchant = scene.shops(
        ("Electronics", "Airline", "Exchange", "Marketplace", "Clothing"), online, np.zeros(len(time), np.int64)
    )
    ring = rng.integers(0, max(1, incidents // _ACCOUNTS_OF_A_RING), incidents)[incident]
    return _events(customer, time, merchant, scene.amounts(merchant, 1.6), online, 3 + len(scene.customers.city) + ring)


def impossible_travel(scene: Scene, incidents: int) -> Events:
    """Simulate impossible travel: a copy of the card is used in a distant city while its owner pays at home."""
    rng = scene.rng
    incident, place = scene.spread(rng.integers(1, 6, incidents))
    customer, start = scene.victims(incidents)[incident], scene.moments(incidents)[incident]
    time = scene.times(incident, place, start, rng.uniform(5, 50, incidents)[incident] * _MINUTE)
    city = rng.integers(0, len(CITIES), incidents)[incident]
    online = np.zeros(len(time), np.bool_)
    merchant = scene.shops(("Electronics", "Restaurant", "Hotel", "Jeweller", "Department Store", "Grocer"), online, city)
    return _events(customer, time, merchant, scene.amounts(merchant, 1.4), online, np.zeros(len(time), np.int64))


def slow_skimming(scene: Scene, incidents: int) -> Events:
    """Simulate slow skimming: for weeks, a shop that the customer has never used makes a small charge every few days."""
    rng = scene.rng
    incident, place = scene.spread(rng.integers(3, 12, incidents))
    customer, start = scene.victims(incidents)[incident], scene.moments(incidents)[incident]
    time = scene.times(incident, place, start, rng.uniform(1.5, 6, incidents)[incident] * MS_PER_DAY)
    ones = np.ones(incidents, np.bool_)
    merchant = scene.shops(("Games", "Streaming", "Marketplace"), ones, np.zeros(incidents, np.int64))[incident]
    amount = rng.uniform(4, 25, incidents)[incident] * np.where(rng.random(len(time)) < 0.7, 1.0, 1.3)
    return _events(customer, time, merchant, amount, np.ones(len(time), np.bool_), 3 + customer)


def _events(customer: Ints, time: Ints, merchant: Ints, amount: Floats, online: npt.NDArray[np.bool_], device: Ints) -> Events:
    return Events(customer, time, merchant, amount, online, device, np.zeros(len(time), np.int64))


class Typology(Struct, frozen=True):
    """A way to misuse cards: share of fraudulent transactions, share reported, incident function, mean incident size."""

    name: str
    share: float
    reported: float
    make: Callable[[Scene, int], Events]
    mean_size: float


TYPOLOGIES = (
    Typology("card_testing", 0.22, 0.90, card_testing, 9.5),
    Typology("stolen_card", 0.20, 0.97, stolen_card, 6.5),
    Typology("compromised_terminal", 0.18, 0.85, compromised_terminal, 17.5),
    Typology("account_takeover", 0.16, 0.95, account_takeover, 4.5),
    Typology("impossible_travel", 0.14, 0.95, impossible_travel, 3.0),
    Typology("slow_skimming", 0.10, 0.55, slow_skimming, 7.0),
)
