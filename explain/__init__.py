"""Evidence, similar cases, narratives and their verification."""
