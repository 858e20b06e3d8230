"""All code that uses Kafka: transport, operator, stages, publishing, health."""
