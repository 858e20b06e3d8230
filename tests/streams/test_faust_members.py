"""
The members of Faust and aiokafka that ``streams/kafka/transport.py`` overrides or uses although they are not public.

A release may change them without notice. If a test fails, read the new source, adapt the transport if needed, and write the new digest.
"""

import hashlib
import inspect

import pytest
from aiokafka import AIOKafkaConsumer
from faust.transport.consumer import Consumer as BaseConsumer
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as DriverConsumer

from streams.kafka.transport import Consumer, ConsumerThread

# the first 12 digits of the SHA-256 of each member's source, in faust-streaming 0.15.3
OVERRIDDEN = {
    (AIOKafkaConsumerThread, "_create_worker_consumer"): "c2701bfc3e6f",
    (AIOKafkaConsumerThread, "on_thread_stop"): "8dfc004e258b",
    (AIOKafkaConsumerThread, "_fetch_records"): "39a2c6c79fc1",
    (AIOKafkaConsumerThread, "_seek_wait"): "9d221e816d94",
    (DriverConsumer, "_new_consumer_thread"): "0870ec53dea7",
    (BaseConsumer, "_getmany"): "fea4952545b4",
    (BaseConsumer, "on_partitions_revoked"): "d04b7ae72c6f",
    (BaseConsumer, "on_partitions_assigned"): "29ce96596f05",
    (BaseConsumer, "seek_to_committed"): "8d52f70fc882",
    (BaseConsumer, "ack"): "5fcf41cf4515",
    (BaseConsumer, "_add_gap"): "4df2573ded7c",
    (BaseConsumer, "_new_offset"): "1d2c7ea89a7a",
}
USED = {
    BaseConsumer: ("_acked", "_acked_index", "_unacked_messages"),
    AIOKafkaConsumer: ("_fetch_max_wait_ms",),  # read when the consumer starts
}


@pytest.mark.parametrize(("owner", "name"), OVERRIDDEN, ids=lambda one: getattr(one, "__name__", one))
def test_an_overridden_member_has_not_changed(owner, name):
    source = inspect.getsource(getattr(owner, name))
    assert hashlib.sha256(source.encode()).hexdigest()[:12] == OVERRIDDEN[owner, name]


def test_every_overridden_member_is_listed():
    for own in (Consumer, ConsumerThread):
        above = own.__mro__[1:]
        overridden = {
            name
            for name, member in vars(own).items()
            if inspect.isfunction(member) and name != "__init__" and any(name in vars(base) for base in above)
        }
        assert overridden
        assert overridden <= {name for _, name in OVERRIDDEN}


def test_the_attributes_that_are_used_exist():
    for owner, names in USED.items():
        source = inspect.getsource(owner)
        assert [name for name in names if f"self.{name} = " not in source and f"self.{name}: " not in source] == []
