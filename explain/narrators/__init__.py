"""Narrators: language models that place facts, and what they are asked."""
