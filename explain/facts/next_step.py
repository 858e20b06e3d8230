"""
The suggested next step. A table lists the possible steps in order, and the first step whose conditions hold is suggested.

Operators can edit the table. No language model is involved.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from core.errors import SettingsError
from core.messages import TYPOLOGIES, Alert, Fact, LikelyTypology, Subject, ThemeReason
from explain.facts.values import text
from explain.words import LANGUAGES
from models.features.ops import Theme

_INCLUDED = Path(__file__).with_name("next_steps.toml")
_LARGEST = 64 << 10

_StepText = Annotated[str, Meta(min_length=1, max_length=200)]


class Step(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A step, its ``translations`` by language, and its conditions.

    The step applies if all its conditions hold. A condition that is None is ignored.
    """

    step: _StepText
    translations: dict[str, _StepText] = {}
    scored: bool | None = None
    outcome: Literal["review", "decline"] | None = None
    typology: str | None = None
    theme: Theme | None = None

    @property
    def always(self) -> bool:
        """Whether the step has no condition."""
        return all(condition is None for condition in (self.scored, self.outcome, self.typology, self.theme))


class NextSteps(Struct, frozen=True, forbid_unknown_fields=True):
    """Steps in the order in which they are tried."""

    step: tuple[Step, ...]


@cache
def load_next_steps(path: str = "") -> NextSteps:
    """
    Return the table in a TOML file, or the built-in table if ``path`` is empty. A file is read once.

    Raises:
        SettingsError: if the file is unreadable or too large, a step has an unknown condition or language, or the last step has a
            condition.
    """
    place = Path(path) if path else _INCLUDED
    where = f"WHYFLAG_NEXT_STEPS: {place}"
    try:
        if place.stat().st_size > _LARGEST:
            raise SettingsError(f"{where} is larger than {_LARGEST >> 10} KiB: shorten it")
        content = place.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"{where} cannot be read: {error}") from None
    return steps_from(content, where)


def built_in_text(path: str = "") -> str:
    """Return the text of the table that holds as long as no other one was approved: of a file, or the built-in one."""
    return (Path(path) if path else _INCLUDED).read_text(encoding="utf-8")


def steps_from(content: str, where: str) -> NextSteps:
    """
    Return the table in a TOML text. ``where`` names the text in errors.

    Raises:
        SettingsError: if the text is too large or not such a table, a step has an unknown condition or language, or the last step has
            a condition.
    """
    if len(content) > _LARGEST:
        raise SettingsError(f"{where} is larger than {_LARGEST >> 10} KiB: shorten it")
    try:
        steps = msgspec.toml.decode(content, type=NextSteps)
    except (msgspec.MsgspecError, ValueError) as error:  # the TOML parser raises ValueError
        raise SettingsError(f"{where}: {error}") from None
    if unknown := [one.typology for one in steps.step if one.typology is not None and one.typology not in TYPOLOGIES]:
        raise SettingsError(f"{where}: unknown typology {unknown[0]!r}: use one of {', '.join(TYPOLOGIES)}")
    if unknown := [language for one in steps.step for language in one.translations if language not in LANGUAGES]:
        raise SettingsError(f"{where}: unknown language {unknown[0]!r}: use one of {', '.join(LANGUAGES)}")
    if not steps.step or not steps.step[-1].always:
        raise SettingsError(f"{where}: the last step must have no condition, so that one step always applies")
    return steps


def next_step(steps: NextSteps, alert: Alert, themes: Sequence[ThemeReason], typology: LikelyTypology | None) -> Step:
    """Return the first step whose conditions hold for an alert, its themes (strongest first) and its likely typology."""
    leading = next((reason.theme for reason in themes if reason.contribution > 0), None)
    decision = alert.decision
    for one in steps.step:
        if (
            (one.scored is None or one.scored == (decision.probability is not None))
            and (one.outcome is None or one.outcome == decision.outcome)
            and (one.typology is None or (typology is not None and one.typology == typology.name))
            and (one.theme is None or one.theme == leading)
        ):
            return one
    return steps.step[-1]


def step_fact(step: Step) -> Fact:
    """Return a step as a fact (``N1``) with its English text and its translations."""
    values = {"text": text(step.step)} | {
        f"text_{language}": text(words) for language, words in sorted(step.translations.items())
    }
    return Fact("N1", "step", Subject.TRANSACTION, values)
