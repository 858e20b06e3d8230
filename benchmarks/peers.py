"""
Two other stream processors on the same topic, with far less work: read a transaction, and optionally count and sum per card.

``python benchmarks/peers.py quix|bytewax nothing|count BOOTSTRAP TRANSACTIONS`` prints transactions per second. It runs in an environment of its
own, because the locked versions of both libraries' dependencies differ from those of this project; ``make bench`` creates it.
"""

import json
import os
import sys
import tempfile
import time


class Meter:
    """Counts transactions from the first one on; prints the rate and ends the process at the last one."""

    def __init__(self, count: int) -> None:
        self._count, self._seen, self._began = count, 0, 0.0

    def tick(self) -> None:
        self._began = self._began or time.perf_counter()
        self._seen += 1
        if self._seen == self._count:
            print(self._seen / (time.perf_counter() - self._began), flush=True)
            os._exit(0)


def run_quix(work: str, bootstrap: str, meter: Meter) -> None:
    from quixstreams import Application

    app = Application(
        broker_address=bootstrap,
        consumer_group=f"quix-{work}",
        auto_offset_reset="earliest",
        state_dir=tempfile.mkdtemp(prefix="whyflag-quix-"),
        loglevel="ERROR",
    )
    frame = app.dataframe(app.topic("transactions", key_deserializer="bytes", value_deserializer="json"))

    def add(value: dict, state: object) -> None:
        state.set("count", state.get("count", 0) + 1)
        state.set("total", state.get("total", 0) + value["amount"])
        meter.tick()

    if work == "count":
        frame.update(add, stateful=True)
    else:
        frame.update(lambda value: meter.tick())
    app.run()


def run_bytewax(work: str, bootstrap: str, meter: Meter) -> None:
    import bytewax.operators as op
    from bytewax.connectors.kafka import KafkaSource
    from bytewax.dataflow import Dataflow
    from bytewax.testing import TestingSink, run_main

    flow = Dataflow("count")
    records = op.input("read", flow, KafkaSource([bootstrap], ["transactions"], tail=False))

    def decoded(record: object) -> tuple[str, int]:
        transaction = json.loads(record.value)
        if work == "nothing":
            meter.tick()
        return transaction["card_id"], transaction["amount"]

    def add(state: tuple[int, int] | None, amount: int) -> tuple[tuple[int, int], None]:
        count, total = state or (0, 0)
        meter.tick()
        return (count + 1, total + amount), None

    stream = op.map("decode", records, decoded)
    if work == "count":
        stream = op.stateful_map("count", stream, add)
    op.output("drop", op.filter("nothing", stream, lambda _: False), TestingSink([]))
    run_main(flow)


def main(peer: str, work: str, bootstrap: str, count: str) -> None:
    {"quix": run_quix, "bytewax": run_bytewax}[peer](work, bootstrap, Meter(int(count)))


if __name__ == "__main__":
    main(*sys.argv[1:])
