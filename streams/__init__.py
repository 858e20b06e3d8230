"""Everything that touches Kafka: transport, operator, the hops, publishing, health."""
