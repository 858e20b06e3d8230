"""From a file of transactions to a model bundle that was evaluated on what came later."""
