"""
Prompts: files in ``explain/prompts`` with a manifest that names each version and its SHA-256.

A prompt's text never changes under its version: explanations carry the version, and a cache answers by it.
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
from explain.claims import Subject, forms_of, is_usual, part_of
from explain.words import ENGLISH, writer

NARRATIVE: Final = "narrative-3"
INVESTIGATION: Final = "investigation-2"
JUDGE: Final = "judge-1"
CHOICE: Final = "choice-1"  # for small models


class Prompt(Struct, frozen=True):
    """A prompt's version and its text with the places ``{marker}`` and ``{facts}``."""

    version: str
    text: str

    def filled(self, facts: Any) -> str:
        """The prompt about some facts, which stand as JSON between markers that nobody can guess."""
        marker = f"=== {secrets.token_hex(8)} ==="
        return self.text.format(marker=marker, facts=msgspec.json.encode(facts).decode())


@lru_cache
def prompt(version: str) -> Prompt:
    """
    A prompt by its version in the manifest, or by the path of a file, whose version is its name and the start of its hash.

    Raises:
        SettingsError: if there is none, if its text is not that of the manifest, or if it lacks the places for facts and marker.
    """
    folder = resources.files("explain").joinpath("prompts")
    manifest = msgspec.json.decode(folder.joinpath("manifest.json").read_bytes(), type=dict[str, str])
    if version in manifest:
        raw = folder.joinpath(f"{version}.txt").read_bytes()
        if hashlib.sha256(raw).hexdigest() != manifest[version]:
            raise SettingsError(f"the prompt {version} is not the one of the manifest: give a changed text a new version")
        return Prompt(version, raw.decode())
    path = Path(version)
    try:
        raw = path.read_bytes()
        text = raw.decode()
        text.format(marker="", facts="")
    except OSError:
        raise SettingsError(f"no prompt {version}: give a file, or one of {', '.join(sorted(manifest))}") from None
    except (UnicodeDecodeError, KeyError, IndexError, ValueError) as error:
        raise SettingsError(
            f"the prompt {path} cannot be filled in ({error}): it may hold {{marker}} and {{facts}} and no other braces but doubled ones"
        ) from None
    if "{facts}" not in text or text.count("{marker}") < 2:
        raise SettingsError(f"the prompt {path} must hold {{facts}} between two {{marker}} lines")
    return Prompt(f"{path.stem}-{hashlib.sha256(raw).hexdigest()[:8]}", text)


def facts_for_model(subject: Subject) -> list[dict[str, Any]]:
    """Return facts as a prompt states them: id, part, side, and their words in each form. They hold no text of others."""
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
