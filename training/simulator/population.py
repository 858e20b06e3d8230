"""Population of the simulated world: cities, merchant categories, merchants, and customers with habits."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from msgspec import Struct

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

MS_PER_DAY = 86_400_000
_HOME_SPREAD = 0.05  # degrees, about five kilometres
_SHARED_DEVICES = 0.08  # share of customers who use the devices of another cardholder in their household


class City(NamedTuple):
    """A city where customers live and shop. ``size`` is a relative weight, ``utc`` the offset from UTC in hours."""

    name: str
    country: str
    lat: float
    lon: float
    size: float
    utc: int = 1


CITIES = (
    City("Paris", "FR", 48.86, 2.35, 10), City("Lyon", "FR", 45.76, 4.84, 4), City("Marseille", "FR", 43.30, 5.37, 4),
    City("Lille", "FR", 50.63, 3.07, 3), City("Bordeaux", "FR", 44.84, -0.58, 3), City("Toulouse", "FR", 43.60, 1.44, 3),
    City("Nantes", "FR", 47.22, -1.55, 2), City("Strasbourg", "FR", 48.57, 7.75, 2), City("Brussels", "BE", 50.85, 4.35, 4),
    City("Antwerp", "BE", 51.22, 4.40, 2), City("Amsterdam", "NL", 52.37, 4.90, 3), City("Cologne", "DE", 50.94, 6.96, 2),
    City("Berlin", "DE", 52.52, 13.40, 3), City("Munich", "DE", 48.14, 11.58, 2), City("Madrid", "ES", 40.42, -3.70, 3),
    City("Barcelona", "ES", 41.39, 2.17, 3), City("Milan", "IT", 45.46, 9.19, 3), City("Rome", "IT", 41.90, 12.50, 2),
    City("Lisbon", "PT", 38.72, -9.14, 2, 0), City("Vienna", "AT", 48.21, 16.37, 1), City("London", "GB", 51.51, -0.13, 2, 0),
    City("New York", "US", 40.71, -74.01, 1, -5), City("Bangkok", "TH", 13.76, 100.50, 0.5, 7), City("Sao Paulo", "BR", -23.55, -46.63, 0.5, -3),
)  # fmt: skip


class Category(NamedTuple):
    """A merchant category: code, relative frequency, share bought online, median amount (major units) and log-normal sigma."""

    mcc: str
    name: str
    weight: float
    online: float
    median: float
    sigma: float


CATEGORIES = (
    Category("5411", "Grocer", 24, 0.08, 32, 0.7), Category("5541", "Fuel", 8, 0.0, 48, 0.4),
    Category("5812", "Restaurant", 12, 0.05, 27, 0.6), Category("5814", "Snack Bar", 13, 0.1, 9, 0.5),
    Category("5912", "Pharmacy", 6, 0.1, 16, 0.6), Category("5311", "Department Store", 5, 0.2, 45, 0.8),
    Category("5651", "Clothing", 5, 0.45, 55, 0.7), Category("5732", "Electronics", 2.5, 0.5, 140, 1.0),
    Category("4111", "Transit", 9, 0.3, 6, 0.7), Category("4511", "Airline", 0.8, 0.95, 210, 0.7),
    Category("7011", "Hotel", 1.0, 0.6, 150, 0.6), Category("5816", "Games", 3, 1.0, 11, 0.9),
    Category("4899", "Streaming", 3.5, 1.0, 12, 0.3), Category("5944", "Jeweller", 0.5, 0.2, 190, 0.9),
    Category("6051", "Exchange", 0.7, 0.9, 120, 1.0), Category("5999", "Marketplace", 6, 0.9, 28, 0.9),
)  # fmt: skip

_ADJECTIVES = ("Blue", "Old", "North", "Golden", "Green", "Little", "Grand", "Corner", "Royal", "Silver", "Quick", "Happy")


class Merchants(Struct, frozen=True):
    """
    M merchants, sorted by (category, online, city).

    A group's merchants span ``group_low`` to ``group_high`` of ``cumulative``, the running sum of their popularity.
    """

    category: Ints
    city: Ints
    online: npt.NDArray[np.bool_]
    lat: Floats
    lon: Floats
    price: Floats
    names: list[str]
    cumulative: Floats
    group_low: Floats
    group_high: Floats

    def choose(self, category: Ints, online: npt.NDArray[np.bool_], city: Ints, u: Floats) -> Ints:
        """Choose merchants by category: in the city if card-present, anywhere if online. ``u`` in [0, 1) picks by popularity."""
        group = (category * 2 + online) * len(CITIES) + np.where(online, 0, city)
        low, high = self.group_low[group], self.group_high[group]
        chosen: Ints = np.searchsorted(self.cumulative, low + u * (high - low), side="right").astype(np.int64)
        return np.minimum(chosen, len(self.category) - 1)

    def nearer(self, one: Ints, other: Ints, lat: Floats, lon: Floats) -> Ints:
        """Return the merchant that is nearer to a place, for each pair of merchants."""
        squares = [(self.lat[m] - lat) ** 2 + (self.lon[m] - lon) ** 2 for m in (one, other)]
        return np.where(squares[1] < squares[0], other, one)


def make_merchants(rng: np.random.Generator, count: int) -> Merchants:
    """Make ``count`` merchants, or more if needed: every category has one in every city and one online."""
    sizes = np.array([city.size for city in CITIES])
    weights = np.array([category.weight for category in CATEGORIES])
    shares = np.array([category.online for category in CATEGORIES])
    n_cities, n_categories = len(CITIES), len(CATEGORIES)
    base_category = np.repeat(np.arange(n_categories), n_cities + 1)
    base_city = np.tile(np.append(np.arange(n_cities), 0), n_categories)
    base_online = np.tile(np.append(np.zeros(n_cities, np.bool_), True), n_categories)
    more = max(0, count - len(base_category))
    category = np.concatenate([base_category, rng.choice(n_categories, more, p=weights / weights.sum())])
    online = np.concatenate([base_online, rng.random(more) < shares[category[len(base_category) :]] * 0.6])
    city = np.concatenate([base_city, rng.choice(n_cities, more, p=sizes / sizes.sum())])
    group = (category * 2 + online) * n_cities + np.where(online, 0, city)
    order = np.argsort(group, kind="stable")
    category, online, city, group = category[order], online[order], city[order], group[order]
    popularity = rng.pareto(1.3, len(group)) + 0.3
    cumulative = np.cumsum(popularity)
    ends = np.searchsorted(group, np.arange(n_categories * 2 * n_cities), side="right")
    begins = np.searchsorted(group, np.arange(n_categories * 2 * n_cities), side="left")
    padded = np.append(0.0, cumulative)
    adjective = rng.integers(0, len(_ADJECTIVES), len(group))
    names = [
        f"{_ADJECTIVES[a]} {CATEGORIES[c].name} {'Online' if o else CITIES[place].name}"
        for a, c, o, place in zip(adjective, category, online, city, strict=True)
    ]
    return Merchants(
        category=category,
        city=city,
        online=online,
        lat=np.array([c.lat for c in CITIES])[city] + rng.normal(0, 0.05, len(group)),
        lon=np.array([c.lon for c in CITIES])[city] + rng.normal(0, 0.05, len(group)),
        price=rng.lognormal(0, 0.3, len(group)),
        names=names,
        cumulative=cumulative,
        group_low=padded[begins],
        group_high=padded[ends],
    )


class Customers(Struct, frozen=True):
    """
    N customers with their habits.

    Home city and position (degrees), income factor, ``rate`` (transactions per day), peak hour (local time), preference for
    shopping online and for categories, devices and trips.
    """

    city: Ints
    lat: Floats
    lon: Floats
    income: Floats
    rate: Floats
    peak_hour: Floats
    online: Floats
    taste: Floats  # [N, C], cumulative over categories
    new_device_at: Ints  # when the second device replaces the first
    device_owner: Ints  # the customer whose devices they use: themselves, or somebody in their household
    trip_begin: Ints  # [N, T]
    trip_end: Ints
    trip_city: Ints

    def where(self, customer: Ints, time: Ints) -> Ints:
        """Return the city each customer is in at a time: the home city, or the destination of a trip."""
        city = self.city[customer]
        for trip in range(self.trip_begin.shape[1]):
            away = (self.trip_begin[customer, trip] <= time) & (time < self.trip_end[customer, trip])
            city = np.where(away, self.trip_city[customer, trip], city)
        return city


def make_customers(rng: np.random.Generator, count: int, rate: float, begin: int, days: int) -> Customers:
    """Make ``count`` customers with ``rate`` transactions per day on average, over ``days`` days from ``begin`` (epoch ms)."""
    sizes = np.array([city.size for city in CITIES])
    weights = np.array([category.weight for category in CATEGORIES])
    city = rng.choice(len(CITIES), count, p=sizes / sizes.sum())
    own = np.arange(count)
    taste = rng.gamma(weights * 0.4, size=(count, len(weights))) + 1e-9
    trips = 1 + days // 45
    trip_begin = begin + rng.integers(0, days * MS_PER_DAY, (count, trips))
    travels = rng.random((count, trips)) < 0.35
    trip_days = rng.gamma(2.0, 2.0, (count, trips)) + 1
    return Customers(
        city=city,
        lat=np.array([c.lat for c in CITIES])[city] + rng.normal(0, _HOME_SPREAD, count),
        lon=np.array([c.lon for c in CITIES])[city] + rng.normal(0, _HOME_SPREAD, count),
        income=rng.lognormal(0, 0.4, count),
        rate=rate * rng.lognormal(-0.18, 0.6, count),
        peak_hour=np.where(rng.random(count) < 0.12, 23.0, 14.5) + rng.normal(0, 2, count),
        online=rng.beta(2, 2, count) * 2,
        taste=np.cumsum(taste / taste.sum(axis=1, keepdims=True), axis=1),
        new_device_at=begin + rng.integers(0, 3 * days * MS_PER_DAY, count),
        device_owner=np.where(rng.random(count) < _SHARED_DEVICES, np.maximum(own - 1, 0), own),
        trip_begin=trip_begin,
        trip_end=trip_begin + np.where(travels, trip_days * MS_PER_DAY, 0).astype(np.int64),
        trip_city=rng.choice(len(CITIES), (count, trips), p=np.sqrt(sizes) / np.sqrt(sizes).sum()),
    )
