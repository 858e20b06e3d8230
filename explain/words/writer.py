"""
Facts and claims written in a language.

Each language has a catalogue, ``<language>.ftl`` in Project Fluent's syntax, with messages for each kind of fact in each form.
Babel (CLDR) formats numbers, money, dates and units. A message that a catalogue lacks is written in English and counted.
"""

import logging
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache, lru_cache
from importlib import resources
from typing import Any, Final

from babel import Locale
from babel.dates import format_date, format_time, get_day_names
from babel.numbers import format_currency, format_decimal, format_percent
from babel.units import format_unit
from fluent.runtime import FluentBundle, FluentResource
from fluent.runtime.types import FluentNumber, fluent_number

from core.clock import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE
from core.messages import Claim, Contrast, Difference, Fact, Form, Joiner, Opening, ThemeReason, Unit, Value
from core.metrics import WORDS_MISSING
from core.money import exponent
from explain.facts.values import code

logger = logging.getLogger(__name__)

ENGLISH: Final = "en"
LANGUAGES: Final = {ENGLISH: "English", "de": "Deutsch", "es": "Español"}
_LOCALES: Final = {ENGLISH: "en_GB", "de": "de_DE", "es": "es_ES"}
_WINDOW_UNITS: Final = (("day", MS_PER_DAY), ("hour", MS_PER_HOUR), ("minute", MS_PER_MINUTE), ("second", 1000))
_RARE = 0.1  # a share below it is written as "1 in N"
_LOWEST_WITHOUT_DECIMALS, _FEW = 100, 10  # from these values on, ratios and counts have no decimals

RANKED: Final = (Opening.STRONGEST_FOR_FRAUD, Opening.STRONGEST_AGAINST_FRAUD)
_COMPOUND: Final = frozenset(
    {
        "theme", "score", "score-few", "doubt-late", "doubt-currency", "other-bundle", "typology-fitted", "cases-contradict", "habit-amount", "habit-place",
        "merchant-history", "archive-missing", "archive-behind", "feature-usual-fraud-count", "feature-usual-fraud-share",
    }
)  # fmt: skip

Argument = str | FluentNumber


@cache
def _log_missing(language: str, message: str) -> None:
    """Log once that a catalogue lacks a message."""
    logger.warning("the catalogue for %s lacks %s: written in English instead", LANGUAGES[language], message)


class MissingMessage(Exception):
    """A catalogue lacks a message, or a message lacks one of its values."""


class Writer:
    """A writer of facts and claims in one language. Several threads may share a writer."""

    def __init__(self, language: str, packages: tuple[str, ...] = ()) -> None:
        """``packages`` hold further catalogues, ``<language>.ftl``, whose messages ``words`` can write."""
        self.language, self._packages = language, packages
        self._locale = Locale.parse(_LOCALES[language])
        self._weekdays = get_day_names("wide", locale=self._locale)
        self._catalogue = FluentBundle([str(self._locale).replace("_", "-")], use_isolating=False)
        for package in ("explain.words", *packages):
            source = resources.files(package).joinpath(f"{language}.ftl").read_text(encoding="utf-8")
            self._catalogue.add_resource(FluentResource(source))

    def fact(self, fact: Fact, form: Form) -> str:
        """Write a fact in a form, without initial capital and full stop; empty for the contrast of a fact that has none."""
        return self._or_in_english(lambda: self._fact(fact, form), lambda english: english.fact(fact, form))

    def claim(self, claim: Claim, facts: dict[str, Fact]) -> str:
        """Write a claim as one sentence. ``facts`` maps ids to facts and must contain every fact that the claim mentions."""
        return self._or_in_english(lambda: self._claim(claim, facts), lambda english: english.claim(claim, facts))

    def sentence(self, fact: Fact) -> str:
        """Write a fact as a separate sentence."""
        return _sentence(self.fact(fact, Form.CLAUSE))

    def contrast(self, fact: Fact) -> str:
        """Write how rare the value of a fact is, as one sentence; empty for a fact without a contrast."""
        words = self.fact(fact, Form.CONTRAST)
        return _sentence(words) if words else ""

    def words(self, name: str, /, **values: Value) -> str:
        """Write a message with its values, such as a page heading."""
        return self._or_in_english(
            lambda: self._message(name, **self._arguments(values)), lambda english: english.words(name, **values)
        )

    def code(self, word: str) -> str:
        """Write a code that every catalogue translates, such as a theme or a channel."""
        return self.words(f"code-{code(word).text}")

    def theme(self, reason: ThemeReason) -> str:
        """Write the name of a theme."""
        return self.code(f"theme-{reason.theme}")

    def value(self, value: Value) -> str:
        """Write a value on its own."""
        written = self._value(value)
        if value.unit is Unit.FLAG:
            return self.words(str(written))
        return written if isinstance(written, str) else str(written.format(self._locale))

    def difference(self, difference: Difference) -> str:
        """Write a difference between a past case and an alert."""
        label = self.label(difference.kind, {"window": difference.window} if difference.window else {})
        both = {"label": label, "there": self.value(difference.there), "here": self.value(difference.here)}
        return self._or_in_english(lambda: self._message("difference", **both), lambda english: english.difference(difference))

    def label(self, kind: str, window: dict[str, Value]) -> str:
        """Write the name of a feature, given the kind of its facts and its window."""
        return self._or_in_english(
            lambda: self._attribute(kind, "label", self._arguments(window)), lambda english: english.label(kind, window)
        )

    def _or_in_english(self, own: Any, other: Any) -> str:
        try:
            return str(own())
        except MissingMessage as error:
            if self.language == ENGLISH:
                raise
            WORDS_MISSING.labels(self.language).inc()
            _log_missing(self.language, str(error))
            return str(other(writer(ENGLISH, self._packages)))

    def _fact(self, fact: Fact, form: Form) -> str:
        if form is Form.CONTRAST:
            return self._contrast(fact, fact.contrast) if fact.contrast else ""
        arguments = self._arguments(fact.values) | {"subject": fact.subject.value, "side": fact.side.value}
        if form is Form.SHORT and fact.kind.startswith("feature-"):
            words = self._message(
                "with-label",
                label=self._attribute(fact.kind, "label", arguments),
                value=self.value(fact.values["value"]),
                subject=fact.subject.value,
            )
        else:
            words = self._attribute(fact.kind, form.value, arguments)
        return self._message("with-usual", words=words, usual=self.value(fact.usual)) if fact.usual else words

    def _contrast(self, fact: Fact, contrast: Contrast) -> str:
        unit = fact.values["value"].unit
        how = {Unit.FLAG: ("flag", "flag"), Unit.CLOCK: ("late", "early"), Unit.WEEKDAY: ("late-in-week", "early-in-week")}
        high, low = how.get(unit, ("long", "recent") if unit in (Unit.DAYS, Unit.SECONDS) else ("high", "low"))
        return self._message(
            f"contrast-{high if contrast.high else low}",
            honest=self._rarity("honest", contrast.honest_share),
            fraud=self._rarity("fraud", contrast.fraud_share),
        )

    def rarity(self, share: float) -> str:
        """Write a share of honest or fraudulent payments on its own, such as "1 in 417"."""
        return self._or_in_english(lambda: self._rarity("rarity", share), lambda english: english.rarity(share))

    def _rarity(self, whom: str, share: float) -> str:
        if share == 0:
            return self._message(f"{whom}-none")
        if share >= _RARE:
            return self._message(
                f"{whom}-percent", share=format_percent(share, "0 %" if self._spaced() else "0%", locale=self._locale)
            )
        return self._message(f"{whom}-one-in", n=_counted(round(1 / share)))

    def _spaced(self) -> bool:
        return self.language != ENGLISH

    def _claim(self, claim: Claim, facts: dict[str, Fact]) -> str:
        phrases: list[str] = []
        for mention in claim.mentions:
            words = self._fact(facts[mention.fact_id], mention.form)
            if mention.form is Form.CONTRAST and phrases:
                phrases[-1] = self._message("with-contrast", words=phrases[-1], contrast=words)
            else:
                phrases.append(words)
        rest = phrases[0]
        joiner = _joiner(claim, facts)
        for number, words in enumerate(phrases[1:], start=2):
            last = number == len(phrases) or joiner is Joiner.SEMICOLON
            rest = self._message(f"joiner-{joiner.value if last else 'comma'}", left=rest, right=words)
        if claim.opening is not Opening.NONE:
            rest = _capital(rest) if self._message("capital-after-colon") == "yes" else rest
            rest = self._opened(claim.opening, facts[claim.mentions[0].fact_id], rest)
        return _sentence(rest)

    def _opened(self, opening: Opening, fact: Fact, rest: str) -> str:
        """
        Return a sentence with its opening.

        Only a theme can be strongest, so the name of the theme is added if the fact is one of the theme's values.
        """
        name = f"opening-{opening.value.replace('_', '-')}"
        if opening in RANKED and fact.kind != "theme":
            return self._message(f"{name}-theme", rest=rest, theme=self._message(f"code-{code(f'theme-{fact.theme}').text}"))
        return self._message(name, rest=rest)

    def _arguments(self, values: dict[str, Value]) -> dict[str, Argument]:
        arguments: dict[str, Argument] = {}
        for name, value in values.items():
            if name == "window":
                arguments |= {"window_note": ""} | _window(value)
            elif name != "delay":
                arguments[name] = self._value(value)
        if "delay" in values:
            arguments["window_note"] = self._message("window-note", delay=self._value(values["delay"]))
        return arguments

    def _value(self, value: Value) -> Argument:
        """Return a value as a message argument: a number if the message may select a variant by it, text otherwise."""
        number = value.number
        if value.unit is Unit.TEXT:
            return value.text
        if value.unit is Unit.CODE:
            return self._message(f"code-{value.text}")
        if value.unit is Unit.COUNTRY:
            return str(self._locale.territories.get(value.text, value.text))
        if number is None:
            raise MissingMessage(f"the number of a value with unit {value.unit}")
        return self._number(value, number)

    def _number(self, value: Value, number: float) -> Argument:
        match value.unit:
            case Unit.MONEY:
                return format_currency(
                    Decimal(round(number)).scaleb(-exponent(value.currency)), value.currency, locale=self._locale
                )
            case Unit.COUNT:
                whole = abs(number - round(number)) <= 0.05 or number >= _FEW
                return _counted(round(number) if whole else round(number, 1))
            case Unit.SHARE:
                return format_percent(number, "0.# %" if self._spaced() else "0.#%", locale=self._locale)
            case Unit.TIMES | Unit.NUMBER:
                digits = "#,##0" if number >= _LOWEST_WITHOUT_DECIMALS else "0.0"
                return format_decimal(number, digits, locale=self._locale)
            case Unit.DAYS:
                return format_decimal(number, "#,##0.0", locale=self._locale)
            case Unit.SECONDS:
                return self._duration(number)
            case Unit.KILOMETRES:
                return format_unit(round(number), "length-kilometer", length="short", locale=self._locale)
            case Unit.SPEED:
                return format_unit(round(number), "speed-kilometer-per-hour", length="short", locale=self._locale)
            case Unit.CLOCK:
                minutes = int(number * 3600 + 0.5) // 60  # hours are float32: round to the nearest second
                return f"{minutes // 60:02d}:{minutes % 60:02d}"
            case Unit.WEEKDAY:
                return str(self._weekdays[int(number)])
            case Unit.INSTANT:
                return f"{self._date(number)}, {format_time(_utc(number), 'HH:mm', locale=self._locale)}"
            case Unit.DATE:
                return self._date(number)
            case _:
                return "yes" if number else "no"

    def _date(self, time: float) -> str:
        return str(format_date(_utc(time), "medium", locale=self._locale))

    def _duration(self, seconds: float) -> str:
        for unit, above, digits in (("day", 48 * 3600, 1), ("hour", 2 * 3600, 1), ("minute", 120, 0)):
            if seconds >= above:
                length = {"day": 86_400, "hour": 3600, "minute": 60}[unit]
                return format_unit(round(seconds / length, digits), f"duration-{unit}", length="short", locale=self._locale)
        return format_unit(round(seconds), "duration-second", length="short", locale=self._locale)

    def _message(self, name: str, /, **arguments: Argument) -> str:
        try:
            pattern = self._catalogue.get_message(name).value
        except LookupError:
            raise MissingMessage(f"the message {name}") from None
        return self._formatted(name, pattern, arguments)

    def _attribute(self, name: str, attribute: str, arguments: dict[str, Argument]) -> str:
        try:
            pattern = self._catalogue.get_message(name).attributes[attribute]
        except LookupError:
            raise MissingMessage(f"the message {name}.{attribute}") from None
        return self._formatted(f"{name}.{attribute}", pattern, arguments)

    def _formatted(self, name: str, pattern: Any, arguments: dict[str, Argument]) -> str:
        written, errors = self._catalogue.format_pattern(pattern, arguments)
        if errors:
            raise MissingMessage(f"a value of the message {name}: {errors[0]}")
        return str(written)


def _joiner(claim: Claim, facts: dict[str, Fact]) -> Joiner:
    """
    Return the joiner of a claim: a semicolon if a clause contains another clause.

    After "and", the next fact would read as part of the inner clause.
    """
    inner = any(one.form is Form.CLAUSE and facts[one.fact_id].kind in _COMPOUND for one in claim.mentions)
    return Joiner.SEMICOLON if inner else claim.joiner


def _window(value: Value) -> dict[str, Argument]:
    ms = round((value.number or 0) * 1000)
    unit, length = next(((unit, length) for unit, length in _WINDOW_UNITS if ms % length == 0), _WINDOW_UNITS[-1])
    return {"window_n": _counted(ms // length), "window_unit": unit}


def _counted(number: float) -> FluentNumber:
    """Return a number by which a message can select singular or plural."""
    found = fluent_number(number)
    assert isinstance(found, FluentNumber)
    return found


def _utc(time: float) -> datetime:
    return datetime.fromtimestamp(time / 1000, UTC)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]


def _sentence(words: str) -> str:
    """Return words with an initial capital and a full stop."""
    return _capital(words) if words.endswith((".", "!", "?", "…")) else f"{_capital(words)}."


@lru_cache
def writer(language: str, packages: tuple[str, ...] = ()) -> Writer:
    """Return the writer for a language in ``LANGUAGES``, or the English writer for any other language."""
    return Writer(language if language in LANGUAGES else ENGLISH, packages)
