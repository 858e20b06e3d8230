"""Hostile records that an attacker, a broken producer or chance may write to ``transactions`` and ``labels``."""

import json
import random
from collections.abc import Callable, Iterator
from typing import Any

PAN = "4111111111111111"
OTHER_PAN = "378282246310005"
# Formats in which a card number may arrive; none of them may appear in anything that whyflag writes.
PAN_FORMS = (
    PAN, "4111 1111 1111 1111", "4111-1111-1111-1111", "4111.1111.1111.1111", "4111_1111_1111_1111", "4111/1111/1111/1111",
    "4111\u00a01111\u00a01111\u00a01111", "4111\u200b1111\u200b1111\u200b1111", "\uff14\uff11\uff11\uff11" + "\uff11" * 12, f"C{PAN}",
    f"%B{PAN}^CANARY/JANE^2512101000", f";{PAN}=25121010000", OTHER_PAN, "3782 822463 10005", "x" + " ".join(PAN),
)  # fmt: skip
SSN, EMAIL, NAME = "078-05-1120", "jane.canary@example.org", "Jane Canary"
SECRETS = (*PAN_FORMS, SSN, EMAIL)
IDENTIFIERS = ("transaction_id", "card_id", "merchant_id", "device_id")
TEXTS = ("merchant_name", "memo", "ip")


def valid(number: int, now: int, **changes: Any) -> dict[str, Any]:
    """Return a valid transaction."""
    return {
        "transaction_id": f"t{number}", "event_time": now, "card_id": f"card-{number % 50}", "merchant_id": f"shop-{number % 20}",
        "amount": 1_000 + number, "currency": "EUR", "mcc": "5411", "country": "FR", "channel": "online",
    } | changes  # fmt: skip


def planted(now: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (description, record) for every secret in every field that an outsider can write."""
    number = 0
    for secret in SECRETS:
        for field in (*IDENTIFIERS, *TEXTS, "currency", "channel", "cardholder_name", "v"):
            number += 1
            yield f"{secret!r} in {field}", valid(number, now + number, **{field: secret, "cardholder_name": NAME})


def _deep(rng: random.Random) -> bytes:
    return rng.choice([b"[" * 9_000, b'{"a":' * 9_000, b'{"memo":' + b"[" * 5_000 + b"]" * 5_000 + b"}"])


def _mutated(rng: random.Random, number: int, now: int) -> bytes:
    """Return a valid record with some fields replaced by arbitrary values."""
    anything: list[Callable[[], Any]] = [
        lambda: None, lambda: True, lambda: [], lambda: {}, lambda: "", lambda: -1, lambda: 2**63, lambda: 10**400, lambda: 1e308, lambda: "\x00",
        lambda: "x" * rng.choice([128, 129, 512, 513, 100_000]), lambda: "1 " * rng.choice([64, 256, 30_000]), lambda: "\ud800", lambda: "\u202e\u200b",
        lambda: rng.choice(SECRETS), lambda: f"{rng.choice(SECRETS)} {rng.choice(SECRETS)}", lambda: "a@" * 250, lambda: "4" * rng.choice([19, 20, 500]),
        lambda: "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randrange(300))), lambda: "' OR 1=1 --", lambda: "<script>alert(1)</script>",
        lambda: rng.randrange(-(2**40), 2**45), lambda: rng.random() * 1e6,
    ]  # fmt: skip
    record = valid(number, now)
    fields = (*record, "device_id", "memo", "merchant_name", "ip", "lat", "lon", "v", "unknown")
    for field in rng.sample(fields, rng.randrange(1, 4)):
        record[field] = rng.choice(anything)()
    return json.dumps(record).encode()


def _heavy(rng: random.Random, number: int, now: int) -> bytes:
    """Return a valid record whose memo is among the slowest to mask."""
    memo = rng.choice(["1 " * 256, "4" * 512, "4111 1111 1111 1112 " * 25, "\uff11 " * 256, "a@b.c " * 85, "078-05-1120 " * 42])
    return json.dumps(valid(number, now, memo=memo, merchant_name=memo)).encode()


def _reused(rng: random.Random, number: int, now: int) -> bytes:
    """Return a record that reuses an earlier transaction id, on the same card or another."""
    earlier = rng.randrange(max(1, number))
    return json.dumps(valid(number, now, transaction_id=f"t{earlier}", card_id=f"card-{rng.randrange(50)}")).encode()


def _timed(rng: random.Random, number: int, now: int) -> bytes:
    """Return a record whose event time is in the past or the future."""
    days = rng.choice([-10_000, -400, -35, -8, -2, 1, 400, 27_000])
    return json.dumps(valid(number, now + days * 86_400_000)).encode()


def _garbage(rng: random.Random, number: int, now: int) -> bytes:
    """Return bytes that do not encode a transaction."""
    return rng.choice(
        [
            b"", b"null", b"\xff\xfe\x00", rng.randbytes(rng.randrange(2_000)), b"1 " * 32_000, b"4111111111111111 " * 4_000,
            json.dumps(valid(number, now)).encode()[: rng.randrange(60)], json.dumps({"memo": PAN, "name": NAME}).encode(),
            b'{"memo":"' + b"".join(b"\\u00%02x" % ord(digit) for digit in PAN) + b'",' , ("\uff14" + "\uff11" * 15).encode(),
            json.dumps(valid(number, now)).encode("utf-16"), b'{"transaction_id":"' + b"9" * 900_000 + b'"}',
        ]
    )  # fmt: skip


def records(seed: int, count: int, now: int) -> Iterator[bytes]:
    """Yield ``count`` records, hostile and valid, with event times from ``now`` on; a seed always yields the same records."""
    rng = random.Random(seed)
    kinds = (_mutated, _mutated, _mutated, _heavy, _reused, _timed, _garbage)
    for number in range(count):
        at = now + number
        match rng.randrange(10):
            case 0:
                yield json.dumps(valid(number, at)).encode()
            case 1:
                yield _deep(rng)
            case _:
                yield rng.choice(kinds)(rng, number, at)
