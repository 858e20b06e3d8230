"""Facts about an alert: typed data computed by code, without sentences."""
