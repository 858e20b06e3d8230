"""
Baseline: the same features and model, written the obvious way.

A stock Faust agent handles one event at a time, with a table for cards and one for merchants. It has no batches, no checkpoints
of its own and no guarantees after a crash.

``python -m benchmarks.baseline BOOTSTRAP COUNT BUNDLE worker`` prints events per second. A test imports this module and compares
it with the engine.
"""

import math
import os
import statistics
import sys
import time
from pathlib import Path

import faust
import msgspec
import numpy as np
from msgspec import structs

from core.messages import Channel, Transaction, decode_transaction_struct, encode
from models.bundles.bundle import Bundle, load_bundle
from models.features.spec import FeatureSpec
from models.scorer import decisions, payments, score

HOUR, DAY = 3_600_000, 86_400_000
LENGTHS = {"1h": HOUR, "1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
NAN = float("nan")
UNUSUAL = "unusual"


decode_past = msgspec.json.Decoder(list[Transaction]).decode  # tables hold JSON


def normal_amount(spec: FeatureSpec, past: list[Transaction], now: Transaction) -> float:
    """Return the normal amount of a card, minor units."""
    last = [p.amount for p in past if p.event_time > now.event_time - 30 * DAY][-51:]
    middle = statistics.median_low(last) if last else 0
    return (len(last) * middle + spec.normal_weight * spec.normal_amount) / (len(last) + spec.normal_weight)


def judged(spec: FeatureSpec, past: list[Transaction], now: Transaction) -> Transaction:
    """Return the transaction as stored in the table. Its memo, which no feature reads, marks an unusual amount."""
    unusual = now.amount > spec.unusual_ratio * normal_amount(spec, past, now)
    return structs.replace(now, memo=UNUSUAL if unusual else None)


def card_features(spec: FeatureSpec, past: list[Transaction], now: Transaction) -> list[float]:
    """Return the features of a card from its transactions of the last 30 days, oldest first."""
    t, amount = now.event_time, now.amount
    hour = t % DAY / HOUR
    windows = {name: [p for p in past if p.event_time > t - length] for name, length in LENGTHS.items()}
    placed = [p for p in past if p.lat is not None and p.lon is not None and p.channel is not Channel.ONLINE]
    devices = list(dict.fromkeys(p.device_id for p in reversed(past) if p.device_id))[:4]
    kilometres = NAN
    if placed and now.lat is not None and now.lon is not None and now.channel is not Channel.ONLINE:
        a, b, c, d = map(math.radians, (placed[-1].lat, placed[-1].lon, now.lat, now.lon))
        half = math.sin((c - a) / 2) ** 2 + math.cos(a) * math.cos(c) * math.sin((d - b) / 2) ** 2
        kilometres = 2 * 6371.0088 * math.asin(min(1.0, math.sqrt(half)))
    normal, last_three = normal_amount(spec, past, now), [p.amount for p in windows["30d"]][-3:]
    features = []
    for feature in spec.entity("card").features:
        op, window = feature.op, windows.get(feature.window, [])
        amounts = [p.amount for p in window]
        value = NAN
        if op == "amount":
            value = amount / 100
        elif op == "hour":
            value = hour
        elif op == "weekday":
            value = (t // DAY + 3) % 7
        elif op == "night":
            value = int(hour) <= spec.night_until
        elif op == "online":
            value = NAN if now.channel is None else now.channel is Channel.ONLINE
        elif op == "count":
            value = len(window) + 1
        elif op == "amount_sum":
            value = (sum(amounts) + amount) / 100
        elif op == "amount_mean":
            value = (sum(amounts) + amount) / (len(window) + 1) / 100
        elif op == "amount_max":
            value = max([*amounts, amount]) / 100
        elif op == "amount_ratio":
            value = amount * len(window) / sum(amounts) if sum(amounts) else NAN
        elif op == "amount_to_max":
            value = amount / max(amounts) if amounts and max(amounts) else NAN
        elif op == "amount_zscore" and len(window) >= 2:
            mean = sum(amounts) / len(window)
            spread = math.sqrt(max(0.0, sum(a * a for a in amounts) / len(window) - mean * mean))
            value = (amount - mean) / (spread + 100)
        elif op == "low_count":
            value = sum(a <= spec.low_amount for a in [*amounts, amount])
        elif op == "distinct_merchants":
            value = len({p.merchant_id for p in window} | {now.merchant_id})
        elif op == "distinct_countries":
            value = len({p.country for p in [*window, now] if p.country})
        elif op == "burst":
            own, longest = LENGTHS[feature.window], LENGTHS["30d"]
            value = (len(window) + 1) / own / ((len(windows["30d"]) + 1) / longest)
        elif op == "new_merchant" and window:
            value = all(p.merchant_id != now.merchant_id for p in window)
        elif op == "new_country" and now.country:
            known = [p.country for p in window if p.country]
            value = now.country not in known if known else NAN
        elif op == "category_share" and now.mcc:
            known = [p.mcc for p in window if p.mcc]
            value = known.count(now.mcc) / len(known) if known else NAN
        elif op == "night_share":
            value = sum(p.event_time % DAY // HOUR <= spec.night_until for p in window) / len(window) if window else NAN
        elif op == "online_share":
            known = [p.channel for p in window if p.channel]
            value = known.count(Channel.ONLINE) / len(known) if known else NAN
        elif op == "amount_to_normal":
            value = amount / normal
        elif op == "recent_to_normal" and last_three:
            value = sum(last_three) / len(last_three) / normal
        elif op == "max_to_normal":
            value = max(amounts, default=0) / normal
        elif op == "unusual_count":
            value = sum(p.memo == UNUSUAL for p in window)
        elif op == "last_unusual":
            value = min(((t - p.event_time) / DAY for p in window if p.memo == UNUSUAL), default=NAN)
        elif op == "seconds_since_last":
            value = (t - past[-1].event_time) / 1000 if past else NAN
        elif op == "distance":
            value = kilometres
        elif op == "speed" and placed:
            value = kilometres / max(abs(t - placed[-1].event_time) / HOUR, 1 / 60)
        elif op == "new_device" and now.device_id and devices:
            value = now.device_id not in devices
        features.append(float(value))
    return features


def merchant_features(spec: FeatureSpec, buckets: dict[str, dict[int, list[int]]], now: Transaction) -> list[float]:
    """Return the features of a merchant from its buckets by resolution: [transactions, low amounts, sum of amounts]."""
    entity = spec.entity("merchant")
    totals = {}
    for window in entity.windows:
        size = {"5m": HOUR // 12, "1h": HOUR, "1d": DAY}[window.resolution]
        last, wanted = now.event_time // size, LENGTHS[window.length] // size
        held = [bucket for at, bucket in buckets.get(window.resolution, {}).items() if last - wanted <= at < last]
        totals[window.length] = [sum(column) for column in zip(*held, strict=True)] if held else [0, 0, 0]
    features = []
    for feature in entity.features:
        count, low, total = totals[feature.window]
        features.append(
            {
                "count": count,
                "amount_mean": total / count / 100 if count else NAN,
                "amount_ratio": now.amount * count / total if total else NAN,
                "low_share": low / count if count else NAN,
                "fraud_reports": 0.0,  # this benchmark has no labels
                "fraud_report_share": spec.fraud_prior * spec.prior_weight / (count + spec.prior_weight),
            }[feature.op]
        )
    return features


def remember(spec: FeatureSpec, buckets: dict[str, dict[int, list[int]]], now: Transaction) -> dict[str, dict[int, list[int]]]:
    """Add a transaction to the merchant's buckets, remove expired buckets (after 31 days at most), and return them."""
    for resolution, size in {"5m": HOUR // 12, "1h": HOUR, "1d": DAY}.items():
        own, at = buckets.setdefault(resolution, {}), now.event_time // size
        keep = {"5m": 13, "1h": 25, "1d": 31}[resolution]
        for old in [other for other in own if other < at - keep]:
            del own[old]
        bucket = own.setdefault(at, [0, 0, 0])
        bucket[0] += 1
        bucket[1] += now.amount <= spec.low_amount
        bucket[2] += now.amount
    return buckets


def decide(bundle: Bundle, cards: dict, merchants: dict, now: Transaction) -> bytes:
    """Decide one transaction and add it to both tables. Return the encoded decision."""
    past = [p for p in decode_past(cards.get(now.card_id, "[]")) if p.event_time > now.event_time - 31 * DAY]
    buckets = merchants.get(now.merchant_id, {})
    x = [*card_features(bundle.spec, past, now), *merchant_features(bundle.spec, buckets, now)]
    cards[now.card_id] = encode([*past, judged(bundle.spec, past, now)]).decode()
    merchants[now.merchant_id] = remember(bundle.spec, buckets, now)
    (decided,) = decisions(payments([now]), score(bundle, np.array([x], np.float32), np.zeros(1, np.uint8)))
    return encode(decided)


def main(bootstrap: str, count: int, bundle: Bundle) -> None:
    """Run until ``count`` events are decided. The first hundred are not timed."""
    app = faust.App(
        "baseline", broker=f"kafka://{bootstrap}", store="memory://", datadir="/tmp", web_enabled=False, topic_disable_leader=True,
        consumer_auto_offset_reset="earliest", origin=None, autodiscover=False, topic_partitions=4,
    )  # fmt: skip
    transactions = app.topic("transactions", value_type=bytes, value_serializer="raw")
    decided = app.topic("decisions", value_type=bytes, value_serializer="raw", key_serializer="raw")
    cards, merchants = app.Table("cards", partitions=4), app.Table("merchants", partitions=4)
    seen, began = 0, 0.0

    @app.agent(transactions)
    async def decide_one(stream):
        nonlocal seen, began
        async for value in stream:
            now = decode_transaction_struct(value)
            await decided.send(key=now.transaction_id.encode(), value=decide(bundle, cards, merchants, now))
            seen += 1
            if seen == 100:
                began = time.perf_counter()
            if seen == count:
                print((count - 100) / (time.perf_counter() - began), flush=True)
                os._exit(0)

    faust.Worker(app, loglevel="ERROR", redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), load_bundle(Path(sys.argv[3])))
