"""Apache Kafka for tests and development, without Docker: Maven fetches the jars, and tests control the broker process."""

from tests.kafka.broker import KafkaCluster, Node, emptied, obtain_jars

__all__ = ["KafkaCluster", "Node", "emptied", "obtain_jars"]
