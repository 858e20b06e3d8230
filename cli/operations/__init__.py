"""Commands that run and maintain the pipeline."""
