"""Objectives, alerts and dashboards as code. ``python -m monitoring.generate`` writes the files for Prometheus and Grafana."""
