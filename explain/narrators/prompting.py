"""
Prompts: files in ``explain/prompts``, with a manifest of their versions and SHA-256 digests.

The text of a version never changes, because explanations record the version and cached answers depend on it.
"""

import hashlib
import secrets
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct

from core.errors import SettingsError
from core.messages import Form, Side
from explain.claims import NarrativeSubject, forms_of, is_usual, part_of
from explain.words import ENGLISH, writer

NARRATIVE: Final = "narrative-3"
INVESTIGATION: Final = "investigation-2"
QUESTION: Final = "question-1"
JUDGE: Final = "judge-1"
CHOICE: Final = "choice-1"  # for small models


class Prompt(Struct, frozen=True):
    """A prompt's version and its text with the placeholders ``{marker}`` and ``{facts}``."""

    version: str
    text: str

    def filled(self, facts: Any) -> str:
        """Return the prompt with facts filled in as JSON, between markers that cannot be guessed."""
        marker = f"=== {secrets.token_hex(8)} ==="
        return self.text.format(marker=marker, facts=msgspec.json.encode(facts).decode())


@lru_cache
def prompt(version: str) -> Prompt:
    """
    Return a prompt by its version in the manifest, or by a file's path. A file's version is its name and the start of its hash.

    Raises:
        SettingsError: if the prompt does not exist, differs from the manifest's digest, or lacks a placeholder.
    """
    folder = resources.files("explain").joinpath("prompts")
    manifest = msgspec.json.decode(folder.joinpath("manifest.json").read_bytes(), type=dict[str, str])
    if version in manifest:
        raw = folder.joinpath(f"{version}.txt").read_bytes()
        if hashlib.sha256(raw).hexdigest() != manifest[version]:
            raise SettingsError(f"the prompt {version} does not match the manifest: give a changed text a new version")
        return Prompt(version, raw.decode())
    path = Path(version)
    try:
        raw = path.read_bytes()
        text = raw.decode()
        text.format(marker="", facts="")
    except OSError:
        raise SettingsError(f"no prompt {version}: give the path of a file, or one of {', '.join(sorted(manifest))}") from None
    except (UnicodeDecodeError, KeyError, IndexError, ValueError) as error:
        raise SettingsError(
            f"the prompt {path} cannot be filled in ({error}): use only {{marker}} and {{facts}}, and double other braces"
        ) from None
    if "{facts}" not in text or text.count("{marker}") < 2:
        raise SettingsError(f"the prompt {path} must contain {{facts}} between two {{marker}} lines")
    return Prompt(f"{path.stem}-{hashlib.sha256(raw).hexdigest()[:8]}", text)


def facts_for_model(subject: NarrativeSubject) -> list[dict[str, Any]]:
    """Return facts as a prompt states them: id, part, side and their words in each form. They contain no third-party text."""
    english = writer(ENGLISH)
    strongest = subject.leading(Side.FRAUD) | subject.leading(Side.LEGITIMATE)
    return [
        {"id": fact.fact_id, "part": part_of(fact)[0].value}
        | ({} if fact.side is Side.NEITHER else {"side": fact.side.value})
        | ({"strongest": True} if fact.fact_id in strongest else {})
        | ({"usual": [form.value for form in forms_of(fact) if is_usual(fact, form)]} if is_usual(fact, Form.SHORT) else {})
        | {form.value: english.fact(fact, form) for form in forms_of(fact)}
        for fact in subject.facts
    ]
