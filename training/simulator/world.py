"""
Simulation of a world: honest transactions, frauds among them, and the labels that report frauds later.

The same seed gives the same result. The result is three separate tables: transactions (the input of a model), labels (reports
with the times at which they become known) and truth (the typology, for evaluation only).
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
from msgspec import Struct

from core.errors import InputError
from core.money import minor_per_major
from training.simulator.fraud import TYPOLOGIES, Events, Scene
from training.simulator.population import (
    CATEGORIES,
    CITIES,
    MS_PER_DAY,
    Customers,
    Ints,
    Merchants,
    make_customers,
    make_merchants,
)  # fmt: skip

_HOUR = 3_600_000
Progress = Callable[[str], None]


class SimulationSpec(Struct, frozen=True, kw_only=True):
    """
    Parameters of a simulation.

    ``begin`` is in epoch milliseconds, ``rate`` in transactions per customer and day. ``fraud_share`` is the share of
    transactions that are fraud.
    """

    transactions: int = 200_000
    days: int = 60
    begin: int = 1_735_689_600_000  # 2025-01-01
    rate: float = 1.6
    fraud_share: float = 0.006
    seed: int = 7
    drift: bool = False
    currency: str = "EUR"


class Simulation(Struct, frozen=True):
    """The tables of one run, each sorted by time. The module docstring describes them."""

    transactions: pa.Table
    labels: pa.Table
    truth: pa.Table


def simulate(spec: SimulationSpec, progress: Progress = lambda stage: None) -> Simulation:
    """
    Run a simulation.

    Raises:
        InputError: if a number of the spec is out of range.
    """
    if not (100 <= spec.transactions <= 50_000_000 and 2 <= spec.days <= 3650 and 0 <= spec.fraud_share <= 0.2):
        raise InputError(
            "simulation out of range: transactions must be 100 to 50,000,000, days 2 to 3,650, the fraud share 0 to 0.2"
        )
    rng = np.random.default_rng(spec.seed)
    progress("customers and merchants")
    count = max(20, round(spec.transactions / (spec.days * spec.rate)))
    merchants = make_merchants(rng, max(600, count // 3))
    customers = make_customers(rng, count, spec.rate, spec.begin, spec.days)
    end = spec.begin + spec.days * MS_PER_DAY
    progress("honest transactions")
    honest = _honest(rng, customers, merchants, spec, spec.transactions)
    progress("fraud")
    frauds = _frauds(Scene(rng, customers, merchants, spec.begin, end), spec)
    progress("tables and labels")
    events = Events.joined([honest, frauds])
    inside = np.flatnonzero((events.time >= spec.begin) & (events.time < end))
    order = inside[np.argsort(events.time[inside], kind="stable")]
    events = Events(*(getattr(events, name)[order] for name in Events.__struct_fields__))
    transactions = _transaction_table(spec, customers, merchants, events)
    labels = _label_table(rng, transactions, events)
    names = np.array(["honest", *(typology.name for typology in TYPOLOGIES)])
    truth = pa.table({"transaction_id": transactions["transaction_id"], "typology": pa.array(names[events.typology])})
    return Simulation(transactions, labels, truth)


def _honest(rng: np.random.Generator, customers: Customers, merchants: Merchants, spec: SimulationSpec, wanted: int) -> Events:
    """Return about ``wanted`` honest transactions: single purchases, and now and then a trip to several shops."""
    base = round(wanted * (1 - spec.fraud_share) / 1.16)
    customer = rng.choice(len(customers.rate), base, p=customers.rate / customers.rate.sum())
    weekly = np.array([1.0, 0.95, 1.0, 1.05, 1.2, 1.35, 0.85])
    days = weekly[(spec.begin // MS_PER_DAY + 3 + np.arange(spec.days)) % 7]
    day = rng.choice(spec.days, base, p=days / days.sum())
    hour = np.where(rng.random(base) < 0.85, rng.normal(customers.peak_hour[customer], 3.5), rng.uniform(0, 24, base)) % 24
    time = spec.begin + day * MS_PER_DAY + (hour * _HOUR).astype(np.int64)
    rounds = np.flatnonzero(rng.random(base) < 0.08)
    shops = rng.integers(1, 4, len(rounds))
    again = np.repeat(rounds, shops)
    customer = np.concatenate([customer, customer[again]])
    time = np.concatenate([time, time[again] + (rng.exponential(25, len(again)) * 60_000).astype(np.int64)])
    n = len(customer)
    category = (customers.taste[customer] < rng.random(n)[:, None]).sum(axis=1)
    category = np.minimum(category, len(CATEGORIES) - 1)
    elapsed = (time - spec.begin) / (spec.days * MS_PER_DAY)
    trend = 1 + 0.5 * elapsed if spec.drift else 1.0
    # the probability of buying in a shop: always 0 if a category is sold only online, always 1 if it is never sold online
    offline = (1 - np.array([c.online for c in CATEGORIES])[category]) ** (customers.online[customer] * trend)
    online = rng.random(n) >= offline
    city = customers.where(customer, time)
    time = time - np.array([c.utc for c in CITIES])[city] * _HOUR  # habits follow the local time of the customer's city

    def shop() -> Ints:
        """Pick one of a customer's two favourite shops for the category and place, or any other shop."""
        which = (customer * 31 + category * 7 + rng.integers(0, 2, n)) * 0.6180339887498949 % 1.0
        return merchants.choose(category, online, city, np.where(rng.random(n) < 0.65, which, rng.random(n)))

    picked, other = shop(), shop()
    at_home = (city == customers.city[customer]) & ~online
    nearer = merchants.nearer(picked, other, customers.lat[customer], customers.lon[customer])
    merchant = np.where(at_home, nearer, picked)
    sigma = np.array([c.sigma for c in CATEGORIES])[category]
    amount = (
        np.array([c.median for c in CATEGORIES])[category]
        * merchants.price[merchant]
        * customers.income[customer]
        * np.exp(rng.normal(0, 1, n) * sigma)
    )
    if spec.drift:
        amount = amount * (1 + 0.25 * elapsed)
    device = np.where(time >= customers.new_device_at[customer], 2, 1)
    return Events(customer, time, merchant, amount, online, np.where(online, device, 0), np.zeros(n, np.int64))


def _frauds(scene: Scene, spec: SimulationSpec) -> Events:
    wanted = spec.transactions * spec.fraud_share
    parts = []
    for number, typology in enumerate(TYPOLOGIES, start=1):
        incidents = max(1, round(wanted * typology.share / typology.mean_size)) if wanted >= 1 else 0
        events = typology.make(scene, incidents)
        keep = slice(None)
        if spec.drift:  # card testing fades, account takeover grows
            elapsed = (events.time - scene.begin) / (scene.end - scene.begin)
            odds = {"card_testing": 1 - 0.8 * elapsed, "account_takeover": 0.3 + elapsed}.get(typology.name)
            keep = scene.rng.random(len(events.time)) < odds if odds is not None else keep  # type: ignore[assignment]
        columns: dict[str, Any] = {name: getattr(events, name)[keep] for name in Events.__struct_fields__}
        columns["typology"] = np.full(len(columns["time"]), number, np.int64)
        parts.append(Events(**columns))
    return Events.joined(parts)


def _transaction_table(spec: SimulationSpec, customers: Customers, merchants: Merchants, events: Events) -> pa.Table:
    n, unit = len(events.time), minor_per_major(spec.currency)
    amount = np.clip(np.round(events.amount * unit), max(unit // 2, 1), 20_000 * unit).astype(np.int64)
    present = ~events.online
    home = np.array([city.country for city in CITIES])
    country = np.where(events.online, home[customers.city[events.customer]], home[merchants.city[events.merchant]])
    card_names = np.array([f"card-{spec.seed}-{i}" for i in range(len(customers.city))])
    merchant_names = np.array([f"m-{spec.seed}-{i}" for i in range(len(merchants.category))])
    device = [
        None if d == 0 else f"dev-{owner}-{d}" if d < 3 else f"dev-x{d * 7919 % 1_000_003}-{t // (14 * MS_PER_DAY) % 97}"
        for owner, d, t in zip(
            customers.device_owner[events.customer].tolist(), events.device.tolist(), events.time.tolist(), strict=True
        )
    ]
    mcc = np.array([category.mcc for category in CATEGORIES])
    return pa.table(
        {
            "transaction_id": pa.array([f"t{spec.seed}-{i:08d}" for i in range(n)]),
            "event_time": pa.array(events.time),
            "card_id": pa.array(card_names[events.customer]),
            "merchant_id": pa.array(merchant_names[events.merchant]),
            "amount": pa.array(amount),
            "currency": pa.array(np.full(n, spec.currency)),
            "mcc": pa.array(mcc[merchants.category[events.merchant]]),
            "merchant_name": pa.array(np.array(merchants.names)[events.merchant]),
            "country": pa.array(country),
            "channel": pa.array(np.where(events.online, "online", "card_present")),
            "device_id": pa.array(device, pa.string()),
            "lat": pa.array(np.where(present, merchants.lat[events.merchant].round(4), np.nan), from_pandas=True),
            "lon": pa.array(np.where(present, merchants.lon[events.merchant].round(4), np.nan), from_pandas=True),
        }
    )


def _label_table(rng: np.random.Generator, transactions: pa.Table, events: Events) -> pa.Table:
    """
    Return the fraud reports: by chargeback after weeks, by the customer after days, by an analyst after hours.

    Some frauds are never reported. Some honest transactions are reported by mistake, and some of those reports are retracted
    later.
    """
    reported = np.array([0.0, *(typology.reported for typology in TYPOLOGIES)])[events.typology]
    n = len(events.time)
    wrong = (events.typology == 0) & (rng.random(n) < 0.0003)
    rows = np.flatnonzero((rng.random(n) < reported) | wrong)
    source = rng.choice(3, len(rows), p=[0.5, 0.42, 0.08])
    delay_days = np.choose(
        source,
        [
            np.clip(rng.lognormal(np.log(14), 0.5, len(rows)), 2, 60),
            np.clip(rng.lognormal(np.log(1.2), 0.8, len(rows)), 0.1, 20),
            np.clip(rng.exponential(0.25, len(rows)), 0.02, 3),
        ],
    )
    label_time = events.time[rows] + (delay_days * MS_PER_DAY).astype(np.int64)
    righted = np.flatnonzero(wrong[rows] & (rng.random(len(rows)) < 0.4))
    all_rows = np.concatenate([rows, rows[righted]])
    times = np.concatenate([label_time, label_time[righted] + (rng.uniform(5, 30, len(righted)) * MS_PER_DAY).astype(np.int64)])
    fraud = np.concatenate([np.ones(len(rows), np.bool_), np.zeros(len(righted), np.bool_)])
    names = np.array(["chargeback", "customer", "analyst"])[np.concatenate([source, np.full(len(righted), 2)])]
    order = np.argsort(times, kind="stable")
    taken = transactions.take(pa.array(all_rows[order]))
    return pa.table(
        {
            **{name: taken[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")},
            "label_time": pa.array(times[order]),
            "fraud": pa.array(fraud[order]),
            "source": pa.array(names[order]),
        }
    )
