"""
Rules and lists that fraud operations write alongside the model: SQL conditions, evaluated by Polars over whole batches.

A rule is an SQL condition over the features of the spec, the fields of the transaction, ``probability``, ``novelty`` and the
names of lists (true if the transaction's key is on the list). Unknown values are NULL, and a comparison with NULL never
matches. Rules raise the model's outcome to review or decline. An approve rule lowers a review by the model to an approval,
but never overrides another rule. Rules and lists expire by the transaction's event time, so that a replay applies the same
ones.
"""

import datetime as dt
import hashlib
import logging
import os
import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import sqlglot
from msgspec import Struct
from sqlglot import exp
from sqlglot.errors import SqlglotError

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # a worker has one core; batches are small
import polars as pl

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.messages import Outcome
from core.metrics import RULE_FAILURES

logger = logging.getLogger(__name__)

# a panic in Polars raises a ``PanicException``, which is not a subclass of ``Exception``
_POLARS_FAILURES = (pl.exceptions.PolarsError, pl.exceptions.PanicException)

TEXT_FIELDS = ("card_id", "merchant_id", "currency", "mcc", "merchant_name", "country", "channel", "device_id", "ip", "memo")
SCORE_FIELDS = ("probability", "novelty")
_TRIED_ROWS = 24
_LONGEST, _DEEPEST, _MOST_PARTS = 4_000, 40, 400  # limits of a condition: characters, nesting levels, parts
_LARGEST_FILE = 64 << 20
_MOST_RULES = 1_000
_REFUSED_SIGNS = ("[", "::", ";", "{")
# Parser node types that a condition may contain. Nodes that look beyond one row or can be made slow are not allowed.
_ALLOWED = frozenset(
    {
        exp.Column, exp.Identifier, exp.Literal, exp.Boolean, exp.Null, exp.Paren, exp.Tuple,
        exp.And, exp.Or, exp.Not, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between, exp.Like, exp.ILike,
        exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.Neg, exp.Case, exp.If, exp.Coalesce, exp.Nullif, exp.Greatest, exp.Least,
        exp.Abs, exp.Ceil, exp.Floor, exp.Round, exp.Sign, exp.Sqrt, exp.Exp, exp.Ln, exp.Pow,
        exp.Lower, exp.Upper, exp.Length, exp.Trim, exp.Left, exp.Right, exp.Substring, exp.StartsWith, exp.EndsWith, exp.DPipe,
    }
)  # fmt: skip
_FUNCTIONS = (
    "ABS CEIL FLOOR ROUND SIGN SQRT EXP LN POW COALESCE NULLIF GREATEST LEAST CASE LOWER UPPER LENGTH TRIM LEFT RIGHT SUBSTR STARTS_WITH "
    "ENDS_WITH"
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Field = Callable[[str], pl.Series]


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One rule. ``when`` is an SQL condition; ``expires`` is the first day on which the rule no longer applies."""

    id: str
    owner: str
    expires: dt.date
    when: str
    outcome: Outcome
    words: str = ""


class ListFile(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A list that conditions refer to by name.

    The list contains values of the field ``key``: those in ``values`` and those in ``file``, which has one value per line.
    """

    key: str
    owner: str
    expires: dt.date
    values: tuple[str, ...] = ()
    file: str = ""


class _Source(Struct, frozen=True, forbid_unknown_fields=True):
    rules: tuple[Rule, ...] = ()
    lists: dict[str, ListFile] = {}


class RuleSet:
    """
    Rules that were checked against a feature spec. ``version`` and ``digest`` are hashes of the rules file and of the lists'
    contents.

    A rule that fails at run time is disabled until the rules are reloaded, and counted in ``whyflag_rule_failures_total``.
    """

    def __init__(
        self, rules: Sequence[Rule], lists: Mapping[str, ListFile], members: Mapping[str, frozenset[str]], content: bytes
    ) -> None:
        self.rules, self._lists, self._members, self.content = tuple(rules), dict(lists), dict(members), content
        digest = hashlib.sha256(content)
        for name in sorted(members):
            digest.update(repr((name, sorted(members[name]))).encode())
        self.digest = digest.hexdigest()
        self.version = self.digest[:8]
        self._conditions = [pl.sql_expr(checked_condition(rule.when)) for rule in rules]
        self._wanted = sorted({name for condition in self._conditions for name in condition.meta.root_names()})
        self._ends = np.array([_ms(rule.expires) for rule in rules], np.int64)
        self._outcomes = np.array([("approve", "review", "decline").index(rule.outcome.value) for rule in rules], np.int8)
        self._disabled = np.zeros(len(rules), np.bool_)

    def hits(self, event_time: npt.NDArray[np.int64], field: Field) -> npt.NDArray[np.bool_]:
        """Return which rules match n transactions, bool [n, R]. ``field`` returns a column by name."""
        n = len(event_time)
        if not self.rules or n == 0:
            return np.zeros((n, len(self.rules)), np.bool_)
        columns = []
        for name in self._wanted:
            if name in self._lists:
                keys = field(self._lists[name].key)
                listed = np.array([key in self._members[name] for key in keys.to_list()])
                columns.append(pl.Series(name, listed & (event_time < _ms(self._lists[name].expires))))
            else:
                columns.append(field(name).alias(name))
        frame = pl.DataFrame(columns) if columns else pl.DataFrame({"": [0] * n})
        held: npt.NDArray[np.bool_] = self._held(frame) & (event_time[:, None] < self._ends) & ~self._disabled
        return held

    def _held(self, frame: pl.DataFrame) -> npt.NDArray[np.bool_]:
        """Return which conditions match, bool [n, R]. Evaluate all at once or, if one fails, one by one."""
        if not self._disabled.any():
            with suppress(*_POLARS_FAILURES):
                return _select(frame, self._conditions)
        held = np.zeros((len(frame), len(self.rules)), np.bool_)
        for number, condition in enumerate(self._conditions):
            if self._disabled[number]:
                continue
            try:
                held[:, number] = _select(frame, [condition])[:, 0]
            except _POLARS_FAILURES as error:
                self._disabled[number] = True
                RULE_FAILURES.labels(self.rules[number].id).inc()
                logger.error("rule %s failed and is disabled until the rules are reloaded: %s", self.rules[number].id, error)
        return held

    @property
    def ids(self) -> tuple[str, ...]:
        """The rules' ids, in order."""
        return tuple(rule.id for rule in self.rules)

    def outcomes(
        self, held: npt.NDArray[np.bool_], outcome: npt.NDArray[np.int8], scored: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int8]:
        """Return outcomes, int8 [n], after the rules. Only transactions in ``scored``, bool [n], may be approved by a rule."""
        raised = np.where(held, self._outcomes, 0).max(axis=1, initial=0)
        approved = (held & (self._outcomes == 0)).any(axis=1) & scored & (raised == 0) & (outcome == 1)
        return np.where(approved, 0, np.maximum(outcome, raised)).astype(np.int8)


def load_rules(path: Path, features: Sequence[str]) -> RuleSet:
    """
    Load rules from a TOML file and check them against the features of a spec.

    Raises:
        InputError: if the file is invalid; the message names file, line and reason.
    """
    try:
        if path.exists() and (not path.is_file() or path.stat().st_size > _LARGEST_FILE):
            raise InputError(f"rules: {path} is not a regular file of at most {_LARGEST_FILE >> 20} MiB")
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"rules: {error}") from None
    lists: dict[str, frozenset[str]] = {}
    try:
        text = content.decode()
        source = msgspec.convert(tomllib.loads(text), _Source)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{path}: {error}") from None
    except msgspec.ValidationError as error:
        raise InputError(f"{path}:{_line_of_error(text, str(error))}: {error}") from None
    known = {
        **dict.fromkeys(features, pl.Float64),
        **dict.fromkeys(TEXT_FIELDS, pl.String),
        **dict.fromkeys(SCORE_FIELDS, pl.Float64),
    }
    for name, listed in source.lists.items():
        line = _line(text, f"[lists.{name}]", 0, "")
        if not _NAME.fullmatch(name) or name in known:
            raise InputError(
                f"{path}:{line}: list name {name!r} must be lower-case (letters, digits, _) and differ from any feature or field"
            )
        if listed.key not in TEXT_FIELDS:
            raise InputError(f"{path}:{line}: list {name}: key {listed.key!r} must be one of {', '.join(TEXT_FIELDS)}")
        lists[name] = frozenset(listed.values) | _members(path, line, name, listed.file)
    if len(source.rules) > _MOST_RULES:
        raise InputError(f"{path}: the file has {len(source.rules):,} rules; at most {_MOST_RULES:,} are allowed")
    schema = {**known, **dict.fromkeys(source.lists, pl.Boolean)}
    seen: set[str] = set()
    for number, rule in enumerate(source.rules):
        line = _line(text, "[[rules]]", number, "id")
        if not _ID.fullmatch(rule.id) or rule.id in seen:
            raise InputError(f"{path}:{line}: rule id {rule.id!r} must be unique and have only letters, digits, _ . and -")
        seen.add(rule.id)
        if not rule.owner.strip():
            raise InputError(f"{path}:{_line(text, '[[rules]]', number, 'owner')}: rule {rule.id} needs an owner")
        if reason := _refused(rule.when, schema):
            raise InputError(f"{path}:{_line(text, '[[rules]]', number, 'when')}: rule {rule.id}: {reason}")
    return RuleSet(source.rules, source.lists, lists, content)


def _members(path: Path, line: int, name: str, file: str) -> frozenset[str]:
    if not file:
        return frozenset()
    folder = path.parent.resolve()
    target = (folder / file).resolve()
    if not target.is_relative_to(folder) or target == path.resolve():
        raise InputError(f"{path}:{line}: list {name}: its file must be in the folder of the rules, not {file!r}")
    try:
        if not target.is_file() or target.stat().st_size > _LARGEST_FILE:
            raise InputError(f"{path}:{line}: list {name}: not a regular file of at most {_LARGEST_FILE >> 20} MiB: {target}")
        return frozenset(entry.strip() for entry in target.read_text().splitlines() if entry.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}:{line}: list {name}: {error}") from None


def checked_condition(when: str) -> str:
    """
    Check a condition and return it regenerated from its parsed form, so that Polars evaluates exactly what was checked.

    Raises:
        InputError: if it is too long or too deep, or uses anything but comparisons, arithmetic and the allowed functions.
    """
    if len(when) > _LONGEST:
        raise InputError(
            f"the condition has {len(when):,} characters; at most {_LONGEST:,} are allowed: use a list or several rules"
        )
    if any(sign in when for sign in _REFUSED_SIGNS):  # the parser needs seconds for thousands of these
        raise InputError(f"rules may not use any of {' '.join(_REFUSED_SIGNS)}. Allowed functions: {_FUNCTIONS}")
    try:
        parsed = sqlglot.parse_one(when, read="postgres")
    except (SqlglotError, RecursionError) as error:
        raise InputError(f"the condition cannot be parsed: {str(error).splitlines()[0]}") from None
    count, level = 0, [parsed]
    for _ in range(_DEEPEST):
        count += len(level)
        for node in level:
            if type(node) not in _ALLOWED:
                used = type(node).__name__
                raise InputError(
                    f"rules may not use {used!r}: it is unsupported or looks at more than one transaction. "
                    f"Allowed functions: {_FUNCTIONS}"
                )
            if isinstance(node, exp.Column) and node.table:
                raise InputError(f"there is no table {node.table!r}: name a feature, field or list")
        level = [child for node in level for child in node.iter_expressions()]
        if not level and count <= _MOST_PARTS:
            return parsed.sql(dialect="postgres")
    raise InputError(
        f"the condition is nested deeper than {_DEEPEST} or has more than {_MOST_PARTS} parts: use a list or several rules"
    )


def _refused(when: str, schema: Mapping[str, Any]) -> str:
    """Return why a condition cannot be used, or an empty string if it can."""
    try:
        condition = pl.sql_expr(checked_condition(when))
        if unknown := [name for name in condition.meta.root_names() if name not in schema]:
            return f"there is no feature, field or list {unknown[0]!r}"
        frame = _tried(schema)
        whole = frame.select(condition.alias("held"))["held"]
        if whole.dtype != pl.Boolean:
            return f"the condition returns {whole.dtype}, not true or false"
        # the result for a transaction must not depend on the other transactions in the batch
        single = pl.concat([frame[i : i + 1].select(condition.alias("held")) for i in range(len(frame))])["held"]
        if len(whole) != len(frame) or not whole.equals(single, null_equal=True):
            return "the condition looks at more than one transaction: use features with windows instead"
    except InputError as error:
        return str(error)
    except (*_POLARS_FAILURES, TypeError, ValueError) as error:
        return str(error).splitlines()[0]
    return ""


def _select(frame: pl.DataFrame, conditions: Sequence[pl.Expr]) -> npt.NDArray[np.bool_]:
    found = frame.select(condition.fill_null(False).alias(str(i)) for i, condition in enumerate(conditions))
    selected: npt.NDArray[np.bool_] = found.to_numpy().reshape(len(frame), -1)
    return selected


def _tried(schema: Mapping[str, Any]) -> pl.DataFrame:
    """Return sample rows with zero, negative, large and unknown values."""
    rng = np.random.default_rng(0)
    columns: dict[str, pl.Series] = {}
    for name, kind in schema.items():
        values: list[Any]
        if kind == pl.Float64:
            values = [0.0, None, -1.0, 1e18, *rng.lognormal(2, 2, _TRIED_ROWS - 4).tolist()]
        elif kind == pl.Boolean:
            values = [True, False] * (_TRIED_ROWS // 2)
        else:
            values = ["", None, "a", "FR", *(f"v{i}" for i in range(_TRIED_ROWS - 4))]
        columns[name] = pl.Series(name, [values[i] for i in rng.permutation(len(values))], kind)
    return pl.DataFrame(columns)


def _line(text: str, header: str, number: int, key: str) -> int:
    """
    Return the line of a key in a table with this header. ``number``, counted from 0, selects one of these tables.

    If ``key`` is empty or not in the table, return the line of the header. If there is no such header, return 1.
    """
    found, at = -1, 1
    for line, words in enumerate(text.splitlines(), 1):
        if words.strip().startswith("["):
            if found == number:
                return at
            if words.strip().split("#")[0].strip() == header:
                found += 1
                at = line
                if not key and found == number:
                    return line
        elif found == number and re.match(rf"\s*{re.escape(key)}\s*=", words):
            return line
    return at


def _line_of_error(text: str, error: str) -> int:
    if match := re.search(r"\$\.rules\[(\d+)\](?:\.(\w+))?", error):
        unknown = re.search(r"unknown field `(\w+)`", error)
        return _line(text, "[[rules]]", int(match[1]), match[2] or (unknown[1] if unknown else "id"))
    return 1


def _ms(day: dt.date) -> int:
    return (day - dt.date(1970, 1, 1)).days * MS_PER_DAY


def numbers(values: npt.NDArray[Any]) -> pl.Series:
    """Return a Polars column of numbers [n]; NaN becomes NULL."""
    return pl.Series("", values.astype(np.float64), nan_to_null=True)


def texts(values: Sequence[str | None]) -> pl.Series:
    """Return a Polars column of texts; None becomes NULL."""
    return pl.Series("", values, pl.String)
