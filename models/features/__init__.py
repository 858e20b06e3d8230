"""Features: one declared spec, one engine, the same bits in training and in the stream."""
