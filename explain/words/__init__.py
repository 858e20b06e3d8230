"""Words: facts and claims written in a reader's language. All sentences of a narrative are written here."""

from typing import Final

from explain.words.writer import ENGLISH, LANGUAGES, RANKED, Writer, writer

__all__ = ["ENGLISH", "LANGUAGES", "RANKED", "UNTRANSLATED", "Writer", "writer"]

# Messages of en.ftl that another catalogue still lacks; readers see them in English.
UNTRANSLATED: Final[frozenset[str]] = frozenset()
