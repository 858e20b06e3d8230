"""
An in-process broker for the demo and smoke tests: librdkafka's mock cluster.

It speaks the Kafka protocol on a loopback port and needs no installation. It is not Apache Kafka: it keeps 5 MiB per partition
in memory and silently drops the oldest records, creates a topic with four partitions on the first metadata request, and allows
one member per consumer group. Producers must not run far ahead of consumers, or records are dropped before they are read.
"""

from types import TracebackType

from core.errors import BrokerError
from core.topics import TOPICS

PARTITIONS = 4
# The newest protocol version that the mock and kafka-python 3 share; the mock does not support kafka-python's version check.
API_VERSION = "2.3"


class EmbeddedBroker:
    """Context manager that runs the broker; ``bootstrap`` is its host:port."""

    bootstrap: str

    def __enter__(self) -> "EmbeddedBroker":
        try:
            from confluent_kafka import Producer
        except ImportError:
            raise BrokerError(
                "the embedded broker needs the demo extra: run `pip install 'whyflag[demo]'` or set WHYFLAG_KAFKA_BOOTSTRAP"
            ) from None
        self._cluster = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = list(self._cluster.list_topics(timeout=10).brokers.values())
        for topic in TOPICS:  # a metadata request creates the topic
            self._cluster.list_topics(topic.name, timeout=10)
        self.bootstrap = f"{brokers[0].host}:{brokers[0].port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._cluster
