"""Commands for analysts and for the explanations they read."""
