"""Kafka clients: connection, transport, publishing, topics and access rights."""
