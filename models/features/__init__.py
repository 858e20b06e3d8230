"""Features: one declarative spec and one engine, with bit-identical results in training and in the stream."""
