"""Every kind of fact in every form and language: the text states the fact's values, which a test reads back from it."""

import re
from datetime import UTC, datetime
from functools import cache
from importlib import resources

import numpy as np
import pytest
from babel import Locale
from babel.dates import get_month_names
from babel.numbers import get_decimal_symbol, get_group_symbol
from fluent.syntax import FluentParser, ast
from hypothesis import given
from hypothesis import strategies as st

from core.messages import (
    TYPOLOGIES,
    Channel,
    Claim,
    Contrast,
    Fact,
    Form,
    Joiner,
    Mention,
    Opening,
    Part,
    Side,
    Subject,
    Unit,
    Value,
)
from core.money import exponent
from explain.facts.kinds import kind_of
from explain.words import ENGLISH, LANGUAGES, UNTRANSLATED, writer
from explain.words.writer import Writer
from models.features.ops import OPERATIONS, Op, Theme
from tests.conftest import metric
from tests.strategies import examples

LOCALES = {"en": "en_GB", "de": "de_DE", "es": "es_ES"}
NAMES = {
    "amount": Unit.MONEY, "when": Unit.INSTANT, "channel": Unit.CODE, "country": Unit.COUNTRY, "hour": Unit.COUNT, "recent": Unit.COUNT,
    "probability": Unit.SHARE, "hundred": Unit.COUNT, "review": Unit.SHARE, "low": Unit.COUNT, "high": Unit.COUNT, "without": Unit.SHARE,
    "theme": Unit.CODE, "fraud": Unit.COUNT, "against": Unit.COUNT, "text": Unit.TEXT, "text_de": Unit.TEXT, "text_es": Unit.TEXT,
    "rule": Unit.TEXT, "raised": Unit.TEXT, "here": Unit.TEXT, "currency": Unit.TEXT, "field": Unit.CODE, "days": Unit.COUNT,
    "median": Unit.MONEY, "rank": Unit.SHARE, "payments": Unit.COUNT, "share": Unit.SHARE, "begin": Unit.CLOCK, "end": Unit.CLOCK,
    "category": Unit.TEXT, "distance": Unit.KILOMETRES, "largest": Unit.MONEY, "first": Unit.DATE, "last": Unit.DATE, "cards": Unit.COUNT, "frauds": Unit.COUNT,
    "cards_with_fraud": Unit.COUNT, "cases": Unit.COUNT, "legitimate": Unit.COUNT, "closed": Unit.INSTANT, "similarity": Unit.SHARE,
    "outcome": Unit.CODE, "typology": Unit.CODE, "support": Unit.COUNT, "right": Unit.SHARE, "ago": Unit.SECONDS, "alerts": Unit.COUNT, "open": Unit.COUNT,
}  # fmt: skip
UNITS_OF_KIND = {("habit-amount", "high"): Unit.MONEY}
CODES = {
    "channel": ("online", "card-present", "unknown"), "theme": tuple(f"theme-{theme.replace(' ', '-')}" for theme in Theme),
    "field": ("field-mcc", "field-country", "field-channel", "field-device"), "outcome": ("fraud", "legitimate"),
    "typology": tuple(name.replace(" ", "-") for name in TYPOLOGIES),
}  # fmt: skip


@cache
def catalogue(language):
    """Return the Fluent messages of a language by name."""
    source = resources.files("explain.words").joinpath(f"{language}.ftl").read_text(encoding="utf-8")
    entries = FluentParser().parse(source).body
    assert not [entry.content for entry in entries if isinstance(entry, ast.Junk)]
    return {entry.id.name: entry for entry in entries if isinstance(entry, ast.Message)}


def patterns(message):
    own = {"": message.value} if message.value else {}
    return own | {attribute.id.name: attribute.value for attribute in message.attributes}


def variables(pattern, messages):
    """Return the variables that a pattern uses, directly or through the messages that it refers to."""
    found, stack = set(), [pattern]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.VariableReference):
            found.add(node.id.name)
        elif isinstance(node, ast.MessageReference):
            stack.append(messages[node.id.name].value)
        elif isinstance(node, ast.BaseNode):
            stack += [child for child in vars(node).values() if not isinstance(child, ast.Span)]
        elif isinstance(node, list):
            stack += node
    return found


KINDS = sorted(name for name, message in catalogue("en").items() if any(one.id.name == "clause" for one in message.attributes))
HELPERS = {"this-subject", "subject-word", "of-subject", "at-subject", "window", "window-before", "before-window", "before-days"}


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_catalogues_have_the_same_messages_with_the_same_values(language):
    english, other = catalogue("en"), catalogue(language)
    assert other.keys() - english.keys() <= HELPERS
    missing = english.keys() - other.keys() - HELPERS - UNTRANSLATED
    assert not missing, f"{language}.ftl lacks {sorted(missing)}: translate them, or list them in explain.words.UNTRANSLATED"
    for name in english.keys() & other.keys() - HELPERS:
        assert patterns(english[name]).keys() == patterns(other[name]).keys(), name
        for attribute, pattern in patterns(english[name]).items():
            used = {one.replace(f"text_{language}", "text") for one in variables(patterns(other[name])[attribute], other)}
            subject = {"subject"}  # a language may or may not need the gender of its subject
            assert used - subject == variables(pattern, english) - subject, (name, attribute)


def test_the_catalogue_covers_every_operation_theme_and_word():
    missing = {kind_of(op) for op in Op} - set(KINDS)
    assert not missing, f"explain/words/en.ftl lacks {sorted(missing)}, each with .clause and .label"
    assert {kind_of(op) for op in Op} == {kind for kind in KINDS if kind.startswith("feature-")}
    assert len({row.reason for row in OPERATIONS.values()}) == len(OPERATIONS)
    words = catalogue("en")
    for codes in CODES.values():
        assert {f"code-{code}" for code in codes} <= words.keys()
    assert {f"code-{channel.replace('_', '-')}" for channel in Channel} <= words.keys()
    assert {f"part-{part}" for part in Part} <= words.keys()
    assert {f"joiner-{joiner}" for joiner in Joiner} <= words.keys()
    assert {f"opening-{opening.replace('_', '-')}" for opening in Opening if opening is not Opening.NONE} <= words.keys()


TIMES = st.integers(946_684_800_000, 4_102_444_000_000).map(float)
NUMBERS = {
    Unit.MONEY: st.integers(0, 10**9).map(float),
    Unit.COUNT: st.one_of(st.integers(0, 3), st.integers(0, 5_000_000)).map(float),
    Unit.SHARE: st.floats(0, 1),
    Unit.TIMES: st.floats(0, 5000),
    Unit.NUMBER: st.floats(-50, 5000),
    Unit.DAYS: st.floats(0, 400),
    Unit.SECONDS: st.floats(0, 10**7),
    Unit.KILOMETRES: st.floats(0, 20_000),
    Unit.SPEED: st.floats(0, 10**6),
    Unit.CLOCK: st.floats(0, 23.99),
    Unit.WEEKDAY: st.integers(0, 6).map(float),
    Unit.INSTANT: TIMES,
    Unit.DATE: TIMES,
    Unit.FLAG: st.sampled_from([0.0, 1.0]),
}
WINDOWS = st.one_of(
    st.integers(1, 400).map(lambda n: n * 86_400),
    st.integers(1, 500).map(lambda n: n * 3600),
    st.integers(1, 90).map(lambda n: n * 60),
)


@st.composite
def values(draw, name, unit):
    if unit is Unit.CODE:
        return Value(unit, text=draw(st.sampled_from(CODES[name])))
    if unit is Unit.COUNTRY:
        return Value(unit, text=draw(st.sampled_from(["DE", "FR", "ES", "US", "JP"])))
    if unit is Unit.TEXT:
        return Value(unit, text="Xyz")
    return Value(unit, draw(NUMBERS[unit]), currency=draw(st.sampled_from(["EUR", "JPY", "KWD"])) if unit is Unit.MONEY else "")


@st.composite
def facts(draw, kind):
    used = set().union(*(variables(pattern, catalogue("en")) for pattern in patterns(catalogue("en")[kind]).values()))
    own = {}
    if kind.startswith("feature-"):
        unit = OPERATIONS[next(op for op in Op if kind_of(op) == kind)].unit
        own["value"] = draw(values("value", unit))
        if "window_n" in used:
            own["window"] = Value(Unit.SECONDS, float(draw(WINDOWS)))
    for name in sorted(used - {"value", "subject", "side", "window_n", "window_unit", "window_note"}):
        unit = UNITS_OF_KIND.get((kind, name)) or NAMES.get(name)
        assert unit is not None, f"{kind} uses the value {name!r}: add its unit to NAMES"
        own[name] = draw(values(name, unit))
    if kind == "payment-recent":
        most = draw(st.integers(1, 8))
        own |= {"recent": Value(Unit.COUNT, float(most)), "hour": Value(Unit.COUNT, float(draw(st.integers(0, most))))}
    if kind == "device-known" and own["payments"].number == 1:
        own["last"] = own["first"]
    if "cards_with_fraud" in own:
        most = int(own["frauds"].number)
        own["cards_with_fraud"] = Value(Unit.COUNT, float(draw(st.integers(min(1, most), most))))
    if kind == "step":
        own |= {f"text_{language}": Value(Unit.TEXT, text="Xyz") for language in LANGUAGES}
    contrast = None
    if kind.startswith("feature-"):
        contrast = Contrast(draw(st.booleans()), *(draw(st.integers(0, 5_000)) / 5_000 for _ in range(2)))
    subject, side = draw(st.sampled_from(list(Subject))), draw(st.sampled_from(list(Side)))
    return Fact("F1", kind, subject, own, side, contrast=contrast)


class Reader:
    """Reads values back from a text in a language, independently of the writer."""

    def __init__(self, language, text):
        locale = Locale.parse(LOCALES[language])
        self.text, self.locale = text.replace("\u00a0", " ").replace("\u202f", " "), locale
        group, decimal = get_group_symbol(locale), get_decimal_symbol(locale)
        whole = rf"\d{{1,3}}(?:{re.escape(group)}\d{{3}})+|\d+"
        found = re.findall(rf"(?<![\d{re.escape(decimal)}])-?(?:{whole})(?:{re.escape(decimal)}\d+)?", self.text)
        self.numbers = {float(one.replace(group, "").replace(decimal, ".")) for one in found}

    def tells(self, value):
        """Return whether the text contains a value, with the rounding that is usual for its unit."""
        number = value.number
        match value.unit:
            case Unit.TEXT:
                return value.text in self.text
            case Unit.MONEY:
                return self._has(round(number) / 10 ** exponent(value.currency), 1e-9)
            case Unit.COUNT:
                return self._has(number, 0.051 if number < 10 else 0.51) or number in (0, 1)  # "no", "once", "a"
            case Unit.SHARE:
                return self._has(100 * number, 0.051)
            case Unit.TIMES | Unit.NUMBER | Unit.DAYS:
                return self._has(number, 0.051 if number < 100 else 0.51)
            case Unit.SECONDS:
                return any(self._has(number / length, 0.51 if length <= 60 else 0.051) for length in (1, 60, 3600, 86_400))
            case Unit.KILOMETRES | Unit.SPEED:
                return self._has(number, 0.51)
            case Unit.CLOCK:
                return f"{int(number * 3600 + 0.5) // 3600:02d}:{int(number * 3600 + 0.5) // 60 % 60:02d}" in self.text
            case Unit.INSTANT | Unit.DATE:
                return self._date(datetime.fromtimestamp(number / 1000, UTC), value.unit is Unit.INSTANT)
            case _:
                return True  # words: tested on their own

    def _has(self, number, tolerance):
        return any(abs(found - number) <= tolerance for found in self.numbers)

    def _date(self, when, with_time):
        months = {get_month_names(width, locale=self.locale)[when.month] for width in ("wide", "abbreviated")}
        written = any(month in self.text for month in months) or f".{when.month:02d}." in self.text
        return (
            written
            and str(when.day) in self.text
            and str(when.year) in self.text
            and (not with_time or f"{when:%H:%M}" in self.text)
        )


@pytest.mark.parametrize("language", sorted(LANGUAGES))
@pytest.mark.parametrize("kind", KINDS)
def test_a_text_states_the_values_of_its_fact(kind, language):
    spoken = ENGLISH if kind in UNTRANSLATED else language
    messages = catalogue(spoken)

    @given(facts(kind))
    @examples(12, database=None)
    def holds(fact):
        words = writer(language)
        for form in (Form.CLAUSE, Form.SHORT):
            text = words.fact(fact, form)
            assert text
            assert "{" not in text
            reader = Reader(spoken, text)
            attribute = form.value if form.value in patterns(messages[kind]) else "label"
            used = variables(patterns(messages[kind])[attribute], messages)
            told = {name for name in fact.values if name in used or (name == "value" and kind.startswith("feature-"))}
            for name in told - {"window"}:
                assert reader.tells(fact.values[name]), (name, fact.values[name], text)
            if "window_n" in used:
                lengths = [fact.values["window"].number / length for length in (1, 60, 3600, 86_400)]
                assert 1 in lengths or any(reader._has(length, 1e-9) for length in lengths), text  # "in the hour before"
        if fact.contrast:
            text = words.fact(fact, Form.CONTRAST)
            reader = Reader(spoken, text)
            for share in (fact.contrast.honest_share, fact.contrast.fraud_share):
                assert share == 0 or reader._has(100 * share, 0.51) or reader._has(1 / share, 0.51), (share, text)

    before = missing(language)
    holds()
    assert missing(language) == before or kind in UNTRANSLATED


def missing(language):
    return metric("whyflag_words_missing_total", language=language)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_flags_sides_and_codes_have_distinct_texts(language):
    words = writer(language)
    for op, row in OPERATIONS.items():
        if row.unit is Unit.FLAG:
            window = {"window": Value(Unit.SECONDS, 86_400.0)}
            texts = {
                words.fact(Fact("F1", kind_of(op), Subject.CARD, {"value": Value(Unit.FLAG, flag)} | window), form)
                for flag in (0.0, 1.0)
                for form in (Form.CLAUSE, Form.SHORT)
            }
            assert len(texts) == 4, op
    for codes in CODES.values():
        assert len({words.words(f"code-{code}") for code in codes}) == len(codes)
    theme = {"theme": Value(Unit.CODE, text="theme-pace"), "without": Value(Unit.SHARE, 0.1)}
    assert len({words.fact(Fact("M1", "theme", Subject.SCORE, theme, side), Form.CLAUSE) for side in Side}) == 3
    highs = {
        words.fact(Fact("F1", "feature-count", Subject.CARD, {"value": Value(Unit.COUNT, 3.0)}, contrast=Contrast(high, 0.1, 0.4)), Form.CONTRAST)
        for high in (True, False)
    }  # fmt: skip
    assert len(highs) == 2


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_subjects_of_features_have_distinct_texts(language):
    for op in (Op.AMOUNT_MEAN, Op.COUNT, Op.FRAUD_REPORTS):
        value = {"value": Value(OPERATIONS[op].unit, 3.0, currency="EUR"), "window": Value(Unit.SECONDS, 86_400.0)}
        told = {
            writer(language).fact(Fact("F1", kind_of(op), one, value), Form.CLAUSE) for one in (Subject.CARD, Subject.MERCHANT)
        }
        assert len(told) == 2


def test_a_missing_message_is_written_in_english_and_counted(monkeypatch):
    german = Writer("de")
    fact = Fact("C1", "cases-none", Subject.CASES, {})
    del german._catalogue._messages["cases-none"]
    before = missing("de")
    assert german.fact(fact, Form.CLAUSE) == writer("en").fact(fact, Form.CLAUSE)
    assert missing("de") == before + 1


def test_an_unknown_language_falls_back_to_english():
    assert writer("xx").language == "en"


@pytest.mark.parametrize(
    ("value", "english", "german"),
    [
        (Value(Unit.MONEY, 123450.0, currency="EUR"), "€1,234.50", "1.234,50 €"),
        (Value(Unit.MONEY, 1234.0, currency="JPY"), "JP¥1,234", "1.234 ¥"),
        (Value(Unit.COUNT, 1979.0), "1,979", "1.979"),
        (Value(Unit.COUNT, 2.4), "2.4", "2,4"),
        (Value(Unit.SHARE, 0.125), "12.5%", "12,5 %"),
        (Value(Unit.SECONDS, 90.0), "90 secs", "90 Sek."),
        (Value(Unit.SECONDS, 7200.0), "2 hrs", "2 Std."),
        (Value(Unit.CLOCK, 5.75), "05:45", "05:45"),
        (Value(Unit.WEEKDAY, 2.0), "Wednesday", "Mittwoch"),
        (Value(Unit.SPEED, 812.4), "812 km/h", "812 km/h"),
        (Value(Unit.COUNTRY, text="DE"), "Germany", "Deutschland"),
        (Value(Unit.COUNTRY, text="ZZZ"), "ZZZ", "ZZZ"),
        (Value(Unit.FLAG, 1.0), "yes", "ja"),
    ],
)
def test_values_are_formatted_for_the_language(value, english, german):
    assert writer("en").value(value).replace("\u00a0", " ") == english
    assert writer("de").value(value).replace("\u00a0", " ") == german


def test_a_sentence_joins_its_facts():
    known = {
        "F1": Fact("F1", "feature-new-device", Subject.CARD, {"value": Value(Unit.FLAG, 1.0)}, Side.FRAUD, contrast=Contrast(True, 1 / 99, 0.18)),
        "F2": Fact("F2", "feature-amount", Subject.TRANSACTION, {"value": Value(Unit.MONEY, 500.0, currency="EUR")}, Side.FRAUD),
        "F3": Fact("F3", "feature-hour", Subject.TRANSACTION, {"value": Value(Unit.CLOCK, 3.0)}, Side.FRAUD),
    }  # fmt: skip
    mentions = (Mention("F1", Form.CLAUSE), Mention("F1", Form.CONTRAST), Mention("F2", Form.CLAUSE), Mention("F3", Form.CLAUSE))
    claim = Claim(Part.WHY_UNUSUAL, mentions, Opening.FOR_FRAUD)
    assert writer("en").claim(claim, known) == (
        "For fraud: This card had not recently been used with this device (this holds for 1 in 99 honest payments and 18% of frauds), "
        "the amount is €5.00 and it happened at 03:00 UTC."
    )


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_the_text_states_the_delay_of_a_window_that_ends_before_the_payment(language):
    values = {"value": Value(Unit.COUNT, 3.0), "window": Value(Unit.SECONDS, 30 * 86_400.0)}
    plain, delayed = (
        writer(language).fact(Fact("F1", "feature-fraud-count", Subject.MERCHANT, own), Form.CLAUSE)
        for own in (values, values | {"delay": Value(Unit.SECONDS, 7 * 86_400.0)})
    )
    assert Reader(language, delayed).tells(Value(Unit.COUNT, 7.0))
    assert not Reader(language, plain)._has(7, 0.1)


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_a_fact_after_a_conditional_clause_is_joined_by_a_semicolon(language):
    theme = Fact(
        "M1",
        "theme",
        Subject.SCORE,
        {"theme": Value(Unit.CODE, text="theme-pace"), "without": Value(Unit.SHARE, 0.1)},
        Side.FRAUD,
    )
    device = Fact("F1", "feature-new-device", Subject.CARD, {"value": Value(Unit.FLAG, 1.0)}, Side.FRAUD)
    claim = Claim(Part.WHY_UNUSUAL, (Mention("M1", Form.CLAUSE), Mention("F1", Form.CLAUSE)))
    assert f"; {writer(language).fact(device, Form.CLAUSE)}" in writer(language).claim(claim, {"M1": theme, "F1": device})


@pytest.mark.parametrize("minute", range(0, 1440, 7))
def test_a_time_of_day_is_written_to_the_minute(minute):
    hour = float(np.float32(minute / 60))
    assert writer("en").value(Value(Unit.CLOCK, hour)) == f"{minute // 60:02d}:{minute % 60:02d}"
