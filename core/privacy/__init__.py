"""Keep card numbers and personal data out of state, logs, prompts and topics."""
