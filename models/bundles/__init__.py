"""Model bundles: their format, their store, and their signatures."""
