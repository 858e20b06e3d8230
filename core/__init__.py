"""Contracts shared by all other packages: messages, topics, settings, errors, clock, metrics and privacy."""
