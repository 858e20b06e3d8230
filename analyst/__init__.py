"""The analyst's queue and console."""
