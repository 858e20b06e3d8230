"""Training: from a file of transactions to a model bundle, evaluated on later transactions."""
