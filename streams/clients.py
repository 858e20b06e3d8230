"""kafka-python at the edges: making topics, writing files into Kafka, watching what comes out."""

import time
from collections.abc import Iterable, Iterator
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from core.errors import BrokerError
from core.settings import Settings
from core.topics import TOPICS


def _options(settings: Settings) -> dict[str, Any]:
    options: dict[str, Any] = {"bootstrap_servers": settings.kafka_bootstrap.split(",")}
    if settings.kafka_api_version:
        options["api_version"] = tuple(int(part) for part in settings.kafka_api_version.split("."))
    return options


def _unreachable(settings: Settings, error: Exception) -> BrokerError:
    return BrokerError(
        f"Kafka at {settings.kafka_bootstrap} does not answer ({error}): is it running, and is WHYFLAG_KAFKA_BOOTSTRAP right?"
    )


def create_topics(settings: Settings, partitions: int, replication: int) -> tuple[list[str], list[str]]:
    """
    Make the topics that are not there yet; returns (made, found).

    Raises:
        BrokerError: if Kafka does not answer or refuses.
    """
    try:
        admin = KafkaAdminClient(**_options(settings))
        try:
            made, found = [], []
            for topic in TOPICS:
                wanted = NewTopic(
                    name=topic.name,
                    num_partitions=partitions,
                    replication_factor=replication,
                    topic_configs=topic.config,
                )
                try:
                    admin.create_topics([wanted])
                    made.append(topic.name)
                except TopicAlreadyExistsError:
                    found.append(topic.name)
            return made, found
        finally:
            admin.close()
    except KafkaError as error:
        raise _unreachable(settings, error) from None


class Sender:
    """
    Writes keyed messages, in order within each key, at a rate.

    Every message must be acknowledged: ``close`` raises for the first one that was not.
    """

    def __init__(self, settings: Settings, rate: float) -> None:
        """
        ``rate`` is messages a second, 0 for as fast as Kafka takes them.

        Raises:
            BrokerError: if Kafka does not answer.
        """
        self._settings = settings
        self._rate = rate
        self._failed: Exception | None = None
        self._begin = 0.0
        self.sent = 0
        # a producer that cannot ask the broker what it speaks cannot be idempotent either: one request at a time keeps order
        careful = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 1} if settings.kafka_api_version else {}
        try:
            self._producer = KafkaProducer(**_options(settings), acks="all", linger_ms=5, **careful)
        except KafkaError as error:
            raise _unreachable(settings, error) from None

    def send(self, topic: str, key: bytes, value: bytes, partition: int | None = None) -> None:
        """
        Write one message, waiting first if that is too soon.

        Raises:
            BrokerError: if Kafka stopped answering.
        """
        if self.sent == 0:
            self._begin = time.monotonic()
        elif self._rate > 0 and (ahead := self._begin + self.sent / self._rate - time.monotonic()) > 0:
            time.sleep(ahead)
        try:
            self._producer.send(topic, key=key, value=value, partition=partition).add_errback(self._note)
        except KafkaError as error:
            raise _unreachable(self._settings, error) from None
        self.sent += 1
        if self._failed:
            raise _unreachable(self._settings, self._failed)

    def _note(self, error: Exception) -> None:
        self._failed = self._failed or error

    def close(self) -> None:
        """
        Wait for all acknowledgements.

        Raises:
            BrokerError: if one is missing.
        """
        try:
            self._producer.flush(timeout=60)
            self._producer.close(timeout=60)
        except KafkaError as error:
            raise _unreachable(self._settings, error) from None
        if self._failed:
            raise _unreachable(self._settings, self._failed)


class Observer:
    """Reads topics from their beginning without a consumer group: it watches, and nobody's work depends on it."""

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        """
        Raises:
        BrokerError: if Kafka does not answer.
        """
        try:
            self._consumer = KafkaConsumer(**_options(settings), enable_auto_commit=False, fetch_max_wait_ms=50)
            places = []
            for topic in topics:
                partitions = self._consumer.partitions_for_topic(topic)
                if not partitions:
                    raise BrokerError(f"Kafka has no topic {topic}: run `whyflag topics create` first")
                places += [TopicPartition(topic, partition) for partition in partitions]
            self._consumer.assign(places)
            self._consumer.seek_to_beginning()
        except KafkaError as error:
            raise _unreachable(settings, error) from None

    def poll(self, timeout_ms: int = 100) -> Iterator[Any]:
        """The records that have come since, in no order across partitions."""
        for records in self._consumer.poll(timeout_ms=timeout_ms, max_records=5000).values():
            yield from records

    def all(self) -> Iterator[Any]:
        """The records that are there now."""
        ends = self._consumer.end_offsets(self._consumer.assignment())
        while any(self._consumer.position(place) < end for place, end in ends.items()):
            yield from self.poll(1_000)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()
