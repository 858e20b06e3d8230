"""Contracts every other package shares: messages, topics, settings, errors, clock, metrics, privacy."""
