"""Facts from the archive: the history of the card, the merchant and the device, and gaps in the archive."""

from core.clock import MS_PER_DAY, MS_PER_HOUR
from core.messages import Fact, Side, Subject, Transaction, Unit, Value
from explain.facts.categories import category_name
from explain.facts.history import DAYS, CardHistory
from explain.facts.values import code, count, date, money, share, text

_FEWEST = 10  # payments that a card's history needs for its facts to support a side
_FRAUDS, _FRAUD_RATE = 2, 0.01  # a merchant with this many reported frauds and this fraud rate supports fraud
_RARE, _COMMON = 0.1, 0.3  # a share below _RARE supports fraud; a share of at least _COMMON counts against fraud
_HIGH, _ORDINARY = 0.95, 0.8  # an amount rank of at least _HIGH supports fraud; at most _ORDINARY counts against fraud
_FAR_KM, _NEAR_KM = 100.0, 30.0
_OLD_MS = 14 * MS_PER_DAY  # time since first use after which a device or a merchant counts against fraud
_COMPARABLE = 2  # a known merchant counts against fraud if the amount is at most this multiple of the largest earlier one
_Told = tuple[str, Subject, dict[str, Value], Side]


def no_archive() -> tuple[Fact, ...]:
    """Return a fact of kind ``archive-missing``: there is no archive, or it does not answer."""
    return (Fact("H0", "archive-missing", Subject.CARD, {}),)


def past_facts(transaction: Transaction, history: CardHistory) -> tuple[Fact, ...]:
    """
    Return the facts ``H1``, ``H2`` …

    They compare a transaction with its card's habits, and describe the history of its merchant and of its device.
    """
    days = count(history.days)
    found: list[_Told] = []
    if not history.complete:
        found.append(("archive-behind", Subject.CARD, {}, Side.NEITHER))
    elif history.days < DAYS:
        found.append(("archive-young", Subject.CARD, {"days": days}, Side.NEITHER))
    if history.habits.payments:
        found += _habits(transaction, history)
    else:
        found.append(("habit-none", Subject.CARD, {"days": days}, Side.NEITHER))
    if transaction.device_id:
        found += _device(history, transaction.event_time)
    merchant = history.merchant
    found.append(
        (
            "merchant-history",
            Subject.MERCHANT,
            {
                "payments": count(merchant.payments),
                "cards": count(merchant.cards),
                "frauds": count(merchant.frauds),
                "cards_with_fraud": count(merchant.cards_with_fraud),
                "days": days,
            },
            _side(merchant.frauds >= _FRAUDS and merchant.frauds >= _FRAUD_RATE * merchant.payments, False),
        )
    )
    # facts from a short or incomplete card history support neither side
    sure = history.complete and history.habits.payments >= _FEWEST
    return tuple(
        Fact(f"H{number}", kind, subject, values, side if sure or subject is Subject.MERCHANT else Side.NEITHER)
        for number, (kind, subject, values, side) in enumerate(found, start=1)
    )


def _habits(transaction: Transaction, history: CardHistory) -> list[_Told]:
    habits, currency = history.habits, history.habits.currency
    found: list[_Told] = []
    if habits.median is not None and habits.high is not None and history.usual_rank is not None:
        values = {
            "median": money(habits.median, currency),
            "high": money(habits.high, currency),
            "rank": share(history.usual_rank),
            "payments": count(habits.amounts),
            "days": count(history.days),
        }
        found.append(("habit-amount", Subject.CARD, values, _side(history.usual_rank >= _HIGH, history.usual_rank <= _ORDINARY)))
    quarter = transaction.event_time // (6 * MS_PER_HOUR) % 4
    at_this_time = habits.hours[quarter]
    hours = {"share": share(at_this_time), "begin": Value(Unit.CLOCK, quarter * 6), "end": Value(Unit.CLOCK, quarter * 6 + 6)}
    found.append(("habit-hours", Subject.CARD, hours, _by_share(at_this_time)))
    if transaction.channel:
        same = habits.online if transaction.channel == "online" else 1 - habits.online
        found.append(
            ("habit-channel", Subject.CARD, {"share": share(same), "channel": code(transaction.channel)}, _by_share(same))
        )
    if transaction.mcc:
        name = category_name(transaction.mcc)
        own = next((one.share for one in habits.categories if one.name == name), None)
        if own is not None:
            values = {"share": share(own), "category": text(name)}
            found.append(("habit-category", Subject.CARD, values, _by_share(own)))
    if history.distance is not None and habits.home is not None:
        values = {"distance": Value(Unit.KILOMETRES, history.distance), "share": share(habits.home.share)}
        found.append(("habit-place", Subject.CARD, values, _side(history.distance > _FAR_KM, history.distance <= _NEAR_KM)))
    found.append(_merchant_for_card(transaction, history, currency))
    return found


def _side(fraud: bool, legitimate: bool) -> Side:
    return Side.FRAUD if fraud else Side.LEGITIMATE if legitimate else Side.NEITHER


def _by_share(own: float) -> Side:
    return _side(own < _RARE, own >= _COMMON)


def _merchant_for_card(transaction: Transaction, history: CardHistory, currency: str) -> _Told:
    here = history.here
    if not here.payments or here.first is None:
        return "habit-merchant-new", Subject.CARD, {"days": count(history.days)}, Side.NEITHER
    if here.largest is None:
        return "habit-merchant", Subject.CARD, {"payments": count(here.payments)}, Side.NEITHER
    values = {"payments": count(here.payments), "largest": money(here.largest, currency)}
    old = transaction.event_time - here.first >= _OLD_MS and transaction.amount <= _COMPARABLE * here.largest
    return "habit-merchant-largest", Subject.CARD, values, _side(False, old)


def _device(history: CardHistory, before: int) -> list[_Told]:
    found: list[_Told] = []
    if history.device is None:
        found.append(("device-new", Subject.DEVICE, {"days": count(history.days)}, Side.FRAUD))
    else:
        values = {
            "payments": count(history.device.payments),
            "first": date(history.device.first),
            "last": date(history.device.last),
        }
        old = before - history.device.first >= _OLD_MS
        found.append(("device-known", Subject.DEVICE, values, _side(False, old)))
    others = (history.device_at_large.cards if history.device_at_large else 0) - (history.device is not None)
    if others > 0:
        shared = {"cards": count(others), "days": count(history.days)}
        found.append(("device-shared", Subject.DEVICE, shared, Side.FRAUD))
    return found
