"""Words: facts and claims written in a reader's language. The only place where sentences about an alert are made."""

from explain.words.writer import ENGLISH, LANGUAGES, RANKED, Writer, writer

__all__ = ["ENGLISH", "LANGUAGES", "RANKED", "Writer", "writer"]
