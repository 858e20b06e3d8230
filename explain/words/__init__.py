"""Words: facts and claims written in a reader's language. All sentences of a narrative are written here."""

from explain.words.writer import ENGLISH, LANGUAGES, RANKED, Writer, writer

__all__ = ["ENGLISH", "LANGUAGES", "RANKED", "Writer", "writer"]
