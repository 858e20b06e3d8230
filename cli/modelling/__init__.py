"""Commands for data scientists."""
