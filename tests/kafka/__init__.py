"""Apache Kafka for tests and development, without Docker: a broker's jars by Maven, its process under our control."""

from tests.kafka.broker import KafkaCluster, Node, emptied, obtain_jars

__all__ = ["KafkaCluster", "Node", "emptied", "obtain_jars"]
