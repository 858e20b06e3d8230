"""The web console: pages, live updates and the API."""
