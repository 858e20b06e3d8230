"""The stages of the stream: profile, score, explain and archive."""
