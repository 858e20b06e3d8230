"""Synchronous Kafka clients, based on kafka-python: create topics, send messages, and observe topics."""

import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType, NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from core.errors import BrokerError, StateError
from core.settings import Settings
from core.topics import LOG_APPEND_TIME, MIN_INSYNC, TIMESTAMP_TYPE, TOPICS, Topic
from streams.kafka.connection import Connection, connection_of
from streams.tracing import headers_of

_REPLICAS = 3


class TopicsCreated(NamedTuple):
    """Names of the topics that were created, names of those that existed before, and how the latter differ, in words."""

    created: list[str]
    existing: list[str]
    differences: list[str]


def create_topics(settings: Settings, partitions: int, replication: int | None = None) -> TopicsCreated:
    """
    Create the topics that do not exist yet, and compare the others with what would have been created.

    ``replication`` None means three replicas if there are at least three brokers, else one for each broker. With three replicas,
    a write needs two (``min.insync.replicas``), so that one broker can fail and no acknowledged record is lost.

    Raises:
        BrokerError: if Kafka does not answer or refuses.
    """
    result = TopicsCreated([], [], [])
    connection = connection_of(settings)
    with admin_client(settings) as admin:
        if replication is None:
            replication = min(_REPLICAS, len(admin.describe_cluster()["brokers"]))
        for topic in TOPICS:
            wanted = NewTopic(
                name=connection.name(topic.name),
                num_partitions=partitions,
                replication_factor=replication,
                topic_configs=_config(topic, replication),
            )
            try:
                admin.create_topics([wanted])
                result.created.append(wanted.name)
            except TopicAlreadyExistsError:
                result.existing.append(wanted.name)
        if result.existing:
            result.differences.extend(_differences(admin, connection, partitions, replication, result.existing))
    return result


def _config(topic: Topic, replication: int) -> dict[str, str]:
    return topic.config | {MIN_INSYNC: str(max(1, replication - 1))}


def _differences(
    admin: KafkaAdminClient, connection: Connection, partitions: int, replication: int, names: list[str]
) -> Iterator[str]:
    """Yield a line for each property of an existing topic that differs from what ``create_topics`` would have created."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    configs = admin.describe_configs(resources, config_filter="all").get("topic", {})
    described = {topic["name"]: topic["partitions"] for topic in admin.describe_topics(names)}
    for topic in TOPICS:
        name = connection.name(topic.name)
        if name not in described:
            continue
        found = {"partitions": str(len(described[name])), "replicas": str(len(described[name][0]["replica_nodes"]))}
        found |= {key: str(value.get("value")) for key, value in configs.get(name, {}).items()}
        expected = {"partitions": str(partitions), "replicas": str(replication)} | _config(topic, replication)
        for key, value in expected.items():
            if key in found and found[key] != value:
                yield f"{name}: {key} is {found[key]}, not {value}"


def refuse_missing(missing: Collection[str]) -> None:
    """
    Refuse to go on without some topics.

    Raises:
        StateError: if there is one; the message says how to create it.
    """
    if missing:
        raise StateError(f"Kafka has no topic {', '.join(missing)}: run `whyflag topics create`")


def check_topics(settings: Settings, topics: Iterable[str]) -> None:
    """
    Check that Kafka has all of the given topics.

    Raises:
        StateError: if one is missing; the message says how to create it.
        BrokerError: if Kafka does not answer or refuses.
    """
    with admin_client(settings) as admin:
        found = set(admin.list_topics())
        refuse_missing(sorted(name for topic in topics if (name := connection_of(settings).name(topic)) not in found))


def check_timestamps(settings: Settings, topics: Iterable[str]) -> None:
    """
    Check that the broker, not the producer, sets record times on topics that clients other than workers write to.

    Raises:
        StateError: if a topic has producer timestamps; the message names the topic and the command that fixes it.
        BrokerError: if Kafka does not answer or refuses.
    """
    connection = connection_of(settings)
    outsiders = {connection.name(topic.name) for topic in TOPICS if topic.outsiders and topic.name in topics}
    if not outsiders:
        return
    with admin_client(settings) as admin:
        wanted = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(outsiders)]
        found = admin.describe_configs(wanted, config_filter="all")
    for name, config in found.get("topic", {}).items():
        kind = config.get(TIMESTAMP_TYPE, {}).get("value")
        if kind is not None and kind != LOG_APPEND_TIME:
            raise StateError(
                f"topic {name} has {TIMESTAMP_TYPE}={kind}: a producer could date its events in the future. Change it with "
                f"`kafka-configs.sh --alter --entity-type topics --entity-name {name} --add-config {TIMESTAMP_TYPE}={LOG_APPEND_TIME}`"
            )


@contextmanager
def admin_client(settings: Settings) -> Iterator[KafkaAdminClient]:
    """
    Yield a Kafka admin client, and close it on exit.

    Raises:
        BrokerError: if Kafka does not answer or refuses.
    """
    connection = connection_of(settings)
    try:
        admin = KafkaAdminClient(**connection.kafka_python)
        try:
            yield admin
        finally:
            admin.close()
    except KafkaError as error:
        raise connection.failed(error) from None


class Sender:
    """
    Producer that sends keyed messages at a given rate, in order within each key.

    Every message must be acknowledged: ``close`` raises for the first one that was not.
    """

    def __init__(self, settings: Settings, rate: float) -> None:
        """
        ``rate`` is in messages per second; 0 means no limit.

        Raises:
            BrokerError: if Kafka does not answer.
        """
        self._settings, self._connection = settings, connection_of(settings)
        self._rate = rate
        self._failed: Exception | None = None
        self._begin = 0.0
        self.sent = 0
        # a producer with a fixed protocol version cannot be idempotent: one request in flight at a time keeps the order
        careful = {"enable_idempotence": False, "max_in_flight_requests_per_connection": 1} if settings.kafka_api_version else {}
        try:
            self._producer = KafkaProducer(**self._connection.kafka_python, acks="all", linger_ms=5, **careful)
        except KafkaError as error:
            raise connection_of(settings).failed(error) from None

    def send(self, topic: str, key: bytes, value: bytes, partition: int | None = None, trace: str = "") -> None:
        """
        Send one message, after waiting as long as the rate requires. ``trace`` is the traceparent of the span that sends it.

        Raises:
            BrokerError: if Kafka stopped answering.
        """
        if self.sent == 0:
            self._begin = time.monotonic()
        elif self._rate > 0 and (ahead := self._begin + self.sent / self._rate - time.monotonic()) > 0:
            time.sleep(ahead)
        try:
            self._producer.send(
                self._connection.name(topic), key=key, value=value, partition=partition, headers=headers_of(trace)
            ).add_errback(self._note)
        except KafkaError as error:
            raise connection_of(self._settings).failed(error) from None
        self.sent += 1
        if self._failed:
            raise connection_of(self._settings).failed(self._failed)

    def _note(self, error: Exception) -> None:
        self._failed = self._failed or error

    def close(self) -> None:
        """
        Wait for all acknowledgements, then close the producer.

        Raises:
            BrokerError: if an acknowledgement is missing.
        """
        try:
            try:
                self._producer.flush(timeout=60)
            finally:
                self._producer.close(timeout=60)
        except KafkaError as error:
            raise connection_of(self._settings).failed(error) from None
        if self._failed:
            raise connection_of(self._settings).failed(self._failed)


class Observer:
    """Reads topics from their beginning without a consumer group, so it commits no offsets and affects no other consumer."""

    def __init__(self, settings: Settings, topics: Iterable[str]) -> None:
        """
        Connect, and move to the beginning of each topic.

        Raises:
            BrokerError: if Kafka does not answer, or a topic does not exist.
        """
        self._connection = connection_of(settings)
        try:
            self._consumer = KafkaConsumer(**self._connection.kafka_python, enable_auto_commit=False, fetch_max_wait_ms=50)
            places = []
            for topic in topics:
                name = self._connection.name(topic)
                partitions = self._consumer.partitions_for_topic(name)
                if not partitions:
                    raise BrokerError(f"Kafka has no topic {name}: run `whyflag topics create` first")
                places += [TopicPartition(name, partition) for partition in partitions]
            self._consumer.assign(places)
            self._consumer.seek_to_beginning()
        except KafkaError as error:
            raise connection_of(settings).failed(error) from None

    def poll(self, timeout_ms: int = 100) -> Iterator[Any]:
        """Yield the records that have arrived since the last call, in no particular order across partitions, with plain topic names."""
        for place, records in self._consumer.poll(timeout_ms=timeout_ms, max_records=5000).items():
            plain = self._connection.plain(place.topic)
            yield from records if plain == place.topic else (record._replace(topic=plain) for record in records)

    def all(self) -> Iterator[Any]:
        """Yield the remaining records up to the present end of the topics."""
        ends = self._consumer.end_offsets(self._consumer.assignment())
        while any(self._consumer.position(place) < end for place, end in ends.items()):
            yield from self.poll(1_000)

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()
