"""Features, scoring, rules, policy and model bundles: from columns of transactions to decisions."""
