"""Benchmark of masking, on ordinary text and on the slowest texts, in megabytes of UTF-8 per second."""

import os
import platform
import random
from time import perf_counter

from core.privacy.sensitive import mask

SIZE = 65_536
TEXTS = {
    "ordinary words": "the customer called about a payment at the shop ",
    "single digits and spaces": "1 ",
    "dotted digits": "1.",
    "random digits": " ".join(random.Random(1).choices("0123456789", k=SIZE // 2)),
    "full-width digits": "\uff11 ",
    "one long run of digits": "4",
    "card numbers": "4111111111111111 ",
    "almost card numbers": "4111 1111 1111 1112 ",
    "e-mail addresses": "a@b.cd ",
    "at signs": "a@",
    "social security numbers": "078-05-1120 ",
}


def main() -> None:
    """Print one line per text."""
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}; one core used")
    for name, piece in TEXTS.items():
        text = piece * max(1, SIZE // len(piece))
        mask(text)
        fastest = min(_timed(text) for _ in range(20))
        print(f"{name:<26} {len(text.encode()) / fastest / 1e6:8.0f} MB/s")


def _timed(text: str) -> float:
    began = perf_counter()
    mask(text)
    return perf_counter() - began


if __name__ == "__main__":
    main()
