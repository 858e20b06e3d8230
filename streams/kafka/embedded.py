"""
A broker inside the process, for the demo and smoke tests: librdkafka's mock cluster.

It speaks the real protocol on a loopback port with nothing to install. It is not Apache Kafka: it keeps 5 MiB a partition in
memory and drops the oldest silently, makes topics of four partitions when first asked about them, and takes one member a
consumer group. Whoever writes to it must stay close to those who read.
"""

from types import TracebackType

from core.errors import BrokerError
from core.topics import TOPICS

PARTITIONS = 4
# The newest protocol the mock and kafka-python 3 agree on; it cannot answer kafka-python's own question about that.
API_VERSION = "2.3"


class EmbeddedBroker:
    """``with EmbeddedBroker() as broker: ... broker.bootstrap``."""

    bootstrap: str

    def __enter__(self) -> "EmbeddedBroker":
        try:
            from confluent_kafka import Producer
        except ImportError:
            raise BrokerError(
                "the embedded broker needs the demo extra: pip install 'whyflag[demo]', or use Kafka by WHYFLAG_KAFKA_BOOTSTRAP"
            ) from None
        self._cluster = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
        brokers = list(self._cluster.list_topics(timeout=10).brokers.values())
        for topic in TOPICS:  # asking about a topic makes it
            self._cluster.list_topics(topic.name, timeout=10)
        self.bootstrap = f"{brokers[0].host}:{brokers[0].port}"
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        del self._cluster
