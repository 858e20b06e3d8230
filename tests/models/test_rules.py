"""Rules: their meaning, errors with line numbers for invalid rules, and results that do not depend on the batch size."""

import datetime as dt
import os
import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import InputError
from core.messages import Outcome
from core.metrics import RULE_FAILURES
from models.features.spec import default_spec
from models.rules import checked_condition, load_rules, numbers, texts
from tests.strategies import examples

FEATURES = default_spec().feature_names
MS_PER_DAY = 86_400_000
BEFORE = int(dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp() * 1000)
RULE = 'id = "{id}"\nowner = "ops"\nexpires = 2030-01-01\nwhen = "{when}"\noutcome = "{outcome}"\n'


def rule(when: str, outcome: str = "review", id: str = "R1") -> str:
    return "[[rules]]\n" + RULE.format(id=id, when=when, outcome=outcome)


def written(tmp_path, text: str):
    path = tmp_path / "rules.toml"
    path.write_text(text)
    return path


def loaded(tmp_path, text: str):
    return load_rules(written(tmp_path, text), FEATURES)


def field(values: dict):
    n = len(next(iter(values.values())))

    def of(name: str):
        given = values.get(name, [None] * n)
        if name in FEATURES or name in ("probability", "novelty"):
            return numbers(np.array([np.nan if value is None else value for value in given], np.float64))
        return texts(given)

    return of


def held(tmp_path, when: str, **values) -> list[bool]:
    n = len(next(iter(values.values())))
    return loaded(tmp_path, rule(when)).hits(np.full(n, BEFORE), field(values))[:, 0].tolist()


def test_a_condition_on_an_unknown_value_is_never_true(tmp_path):
    # Polars treats NaN as greater than any number; in SQL, a comparison with NULL is neither true nor false
    assert held(tmp_path, "amount > 100", amount=[None, 50.0, 150.0]) == [False, False, True]
    assert held(tmp_path, "NOT amount > 100", amount=[None, 50.0, 150.0]) == [False, True, False]
    assert held(tmp_path, "amount IS NULL", amount=[None, 50.0]) == [True, False]
    assert held(tmp_path, "country <> 'FR'", country=[None, "FR", "DE"]) == [False, False, True]
    assert held(tmp_path, "probability >= 0.5", probability=[None, 0.5]) == [False, True]


@given(st.lists(st.tuples(st.none() | st.floats(0, 1e6), st.none() | st.sampled_from(["FR", "DE"])), min_size=1, max_size=40))
def test_rules_agree_with_python_for_any_batch_size(tmp_path_factory, rows):
    rules = loaded(tmp_path_factory.mktemp("rules"), rule("amount BETWEEN 10 AND 500 AND country IN ('FR')"))
    amount, country = [row[0] for row in rows], [row[1] for row in rows]
    expected = [a is not None and 10 <= a <= 500 and c == "FR" for a, c in rows]
    whole = rules.hits(np.full(len(rows), BEFORE), field({"amount": amount, "country": country}))[:, 0]
    single = [bool(rules.hits(np.array([BEFORE]), field({"amount": [a], "country": [c]}))[0, 0]) for a, c in rows]
    assert whole.tolist() == single == expected


def test_lists_are_referenced_by_name_and_expire(tmp_path):
    (tmp_path / "blocked.txt").write_text("m-1\n\nm-2\n")
    text = (
        '[lists.blocked]\nkey = "merchant_id"\nowner = "ops"\nexpires = 2026-02-01\nfile = "blocked.txt"\nvalues = ["m-3"]\n'
        + rule("blocked AND amount > 0")
    )
    rules = loaded(tmp_path, text)
    values = field({"merchant_id": ["m-1", "m-3", "m-9", "m-2"], "amount": [1.0] * 4})
    assert rules.hits(np.full(4, BEFORE), values)[:, 0].tolist() == [True, True, False, True]
    assert not rules.hits(np.full(4, BEFORE + 32 * MS_PER_DAY), values).any(), "the list has expired"
    version = rules.version
    (tmp_path / "blocked.txt").write_text("m-1\n")
    assert loaded(tmp_path, text).version != version, "members are part of the version"


def test_a_rule_expires_by_the_event_time_of_the_transaction(tmp_path):
    rules = loaded(tmp_path, rule("amount > 0"))
    last = int(dt.datetime(2029, 12, 31, 23, 59, 59, tzinfo=dt.UTC).timestamp() * 1000)
    assert rules.hits(np.array([last, last + 1000]), field({"amount": [1.0, 1.0]}))[:, 0].tolist() == [True, False]


@pytest.mark.parametrize(
    ("outcomes", "by_model", "after"),
    [
        ((), 0, 0),
        (("review",), 0, 1),
        (("decline",), 0, 2),
        (("decline",), 1, 2),
        (("review",), 2, 2),
        (("approve",), 1, 0),
        (("approve",), 2, 2),  # a rule cannot approve what the model declined
        (("approve", "review"), 0, 1),
        (("approve", "decline"), 1, 2),
    ],
)
def test_the_precedence_of_rules_and_model_outcomes(tmp_path, outcomes, by_model, after):
    rules = loaded(tmp_path, "\n".join(rule("amount > 0", outcome, f"R{i}") for i, outcome in enumerate(outcomes)) or "")
    hits = rules.hits(np.array([BEFORE]), field({"amount": [1.0]}))
    assert rules.outcomes(hits, np.array([by_model], np.int8), np.array([True])).tolist() == [after]
    unscored = rules.outcomes(hits, np.array([1], np.int8), np.array([False])).tolist()[0]
    assert unscored >= 1, "a rule must never approve an unscored transaction"


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        (rule("amount > > 3"), 5, "rules may not use"),
        (rule("amuont > 3"), 5, "no feature, field or list 'amuont'"),
        (rule("amount + 1"), 5, "not true or false"),
        (rule("country > 3"), 5, "cannot compare string with numeric"),
        (rule("SUM(amount) > 3 AND probability > 2"), 5, "more than one transaction"),
        (rule("COUNT(*) > 3"), 5, "more than one transaction"),
        (rule("RANK() OVER (ORDER BY amount) = 1"), 5, "more than one transaction"),
        (rule("amount > (SELECT 1)"), 5, "rules may not use 'Subquery'"),
        (rule("amount > 3") + "\n" + rule("amount > 4"), 9, "must be unique"),
        (rule("amount > 3", "maybe"), 6, "outcome"),
        (rule("amount > 3").replace('owner = "ops"', 'owner = " "'), 3, "owner"),
        (rule("amount > 3").replace("expires = 2030-01-01\n", ""), 2, "expires"),
        (rule("amount > 3").replace("2030-01-01", '"soon"'), 4, "date"),
        (rule("amount > 3") + 'wehn = "x"\n', 7, "wehn"),
        ('[lists.Blocked]\nkey = "merchant_id"\nowner = "o"\nexpires = 2030-01-01\n', 1, "lower-case"),
        ('[lists.amount]\nkey = "merchant_id"\nowner = "o"\nexpires = 2030-01-01\n', 1, "differ from any feature"),
        ('\n[lists.blocked]\nkey = "amount"\nowner = "o"\nexpires = 2030-01-01\n', 2, "key"),
        ('[lists.blocked]\nkey = "merchant_id"\nowner = "o"\nexpires = 2030-01-01\nfile = "none.txt"\n', 1, "none.txt"),
        ("[[rules]\n", None, "line 1"),
    ],
)
def test_invalid_rules_are_refused_with_their_line(tmp_path, text, line, reason):
    path = written(tmp_path, text)
    with pytest.raises(InputError, match=f"{path}:{line}:" if line else str(path)) as refused:
        load_rules(path, FEATURES)
    assert reason in str(refused.value)


def test_a_missing_rules_file_raises_an_input_error(tmp_path):
    with pytest.raises(InputError, match="rules"):
        load_rules(tmp_path / "none.toml", FEATURES)


def test_a_rule_can_have_any_outcome(tmp_path):
    for outcome in Outcome:
        assert loaded(tmp_path, rule("amount > 0", outcome.value)).rules[0].outcome is outcome


@pytest.mark.parametrize(
    "when",
    [
        "LPAD(merchant_id, 2000000000, 'x') = 'a'",
        "REPEAT(merchant_id, 2000000000) = 'a'",
        "merchant_id ~ '(a+)+$'",
        "REGEXP_LIKE(merchant_id, '(a+)+$')",
        "amount > (SELECT 1)",
        "t.amount > 1",
        "CAST(amount AS VARCHAR) = '1'",
        "ARRAY_AGG(amount) IS NULL",
        "amount > 1; DROP TABLE x",
        "SUM(amount) OVER () > 1",
        "RANDOM() > 0.5",
        "NOW() > amount",
        "amount > 1 UNION SELECT 1",
        "*",
        "",
        "amount" + "::int" * 700 + " > 1",
        "amount" + "[1]" * 1_300 + " > 1",
        "a" + ".b" * 1_900 + " > 1",
        " AND ".join(["amount > 1"] * 20_000),
        "(" * 500 + "amount > 1" + ")" * 500,
        "NOT " * 300 + "amount > 1",
        " OR ".join(f"amount = {number}" for number in range(150)),
        "amount IN (" + ", ".join(map(str, range(500))) + ")",
    ],
)  # fmt: skip
def test_conditions_that_could_harm_the_process_are_refused(tmp_path, when):
    """In Polars, the first two abort the process, and twenty thousand ANDs crash it."""
    path = written(tmp_path, rule(when.replace('"', "'")))
    with pytest.raises(InputError, match=re.escape(str(path))):
        load_rules(path, FEATURES)


@given(st.text("amountANDORT()<>=.+-*/%'01,| LIKESNUL", max_size=60))
@examples(400)
def test_any_text_is_a_condition_or_is_refused(when):
    try:
        again = checked_condition(when)
    except InputError:
        return
    assert checked_condition(again) == again


@pytest.mark.parametrize("file", ["../secret.txt", "/etc/passwd", "link.txt", "sub/../../secret.txt", "rules.toml", "."])
def test_a_list_is_read_from_the_folder_of_the_rules_only(tmp_path, file):
    folder = tmp_path / "rules"
    folder.mkdir()
    (tmp_path / "secret.txt").write_text("secret")
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    path = written(folder, f'[lists.l]\nkey = "merchant_id"\nowner = "o"\nexpires = 2030-01-01\nfile = "{file}"\n')
    with pytest.raises(InputError, match="list l"):
        load_rules(path, FEATURES)


def test_a_rule_that_fails_is_disabled_and_counted_and_the_others_go_on(tmp_path, monkeypatch):
    rules = loaded(tmp_path, rule("amount > 10", id="good") + "\n" + rule("amount > 20", id="bad"))
    rules._conditions[1] = pl.col("amount").str.to_lowercase() == "x"  # fails: a number has no lower case
    values = {"amount": [5.0, 15.0, 25.0]}
    before = RULE_FAILURES.labels("bad")._value.get()
    for _ in range(3):
        assert rules.hits(np.full(3, BEFORE), field(values)).tolist() == [[False, False], [True, False], [True, False]]
    assert RULE_FAILURES.labels("bad")._value.get() == before + 1


def test_a_rules_file_that_is_a_pipe_is_refused(tmp_path):
    os.mkfifo(tmp_path / "rules.toml")
    with pytest.raises(InputError, match="not a regular file"):
        load_rules(tmp_path / "rules.toml", FEATURES)
