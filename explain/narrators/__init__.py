"""Language models that arrange facts into a narrative (``NarratorService``), and their prompts."""
