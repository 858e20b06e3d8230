"""Access control: users, roles, sessions, tokens and log-ins."""
