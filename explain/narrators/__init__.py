"""NarratorService: language models that arrange facts into a narrative, and their prompts."""
