"""Measure models: metrics, reports, backtests, and published protocols."""
