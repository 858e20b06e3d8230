"""
Rules and lists beside the model, as fraud operations write them: SQL expressions, evaluated by Polars over whole batches.

A rule is an SQL condition over the features of the spec, the fields of the transaction, ``probability``, ``novelty`` and the names of
lists (true where the transaction's key is on the list). What is unknown is NULL and no condition over it holds. Rules raise what the
model says to review or decline; a rule that approves lowers a review of the model's, and never what another rule says.
Rules and lists end by the transaction's own time, so that a replay meets the same ones.
"""

import datetime as dt
import hashlib
import json
import os
import re
import tomllib
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # a worker has one core; batches are small
import polars as pl

from core.clock import MS_PER_DAY
from core.errors import InputError
from core.messages import Outcome

TEXT_FIELDS = ("card_id", "merchant_id", "currency", "mcc", "merchant_name", "country", "channel", "device_id", "ip", "memo")
SCORE_FIELDS = ("probability", "novelty")
_TRIED_ROWS = 24
_NODES = frozenset({"Column", "BinaryExpr", "Ternary", "Cast", "Alias"})
_FUNCTIONS = frozenset(
    {
        "Sql",
        "StringExpr",
        "Boolean",
        "Abs",
        "Ceil",
        "Coalesce",
        "Exp",
        "Floor",
        "Log",
        "MaxHorizontal",
        "MinHorizontal",
        "Pow",
        "Sign",
    }
)
_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")

Field = Callable[[str], pl.Series]


class Rule(Struct, frozen=True, forbid_unknown_fields=True):
    """One rule. ``when`` is an SQL condition; ``expires`` the first day on which it no longer holds."""

    id: str
    owner: str
    expires: dt.date
    when: str
    outcome: Outcome
    words: str = ""


class ListFile(Struct, frozen=True, forbid_unknown_fields=True):
    """Keys that a condition may ask for by the list's name: the values of ``key``, here or one a line in ``file``."""

    key: str
    owner: str
    expires: dt.date
    values: tuple[str, ...] = ()
    file: str = ""


class _Source(Struct, frozen=True, forbid_unknown_fields=True):
    rules: tuple[Rule, ...] = ()
    lists: dict[str, ListFile] = {}


class RuleSet:
    """Rules, checked against a feature spec. ``version`` is a hash of their content and of that of their lists."""

    def __init__(
        self, rules: Sequence[Rule], lists: Mapping[str, ListFile], members: Mapping[str, frozenset[str]], content: bytes
    ) -> None:
        self.rules, self._lists, self._members, self.content = tuple(rules), dict(lists), dict(members), content
        digest = hashlib.sha256(content)
        for name in sorted(members):
            digest.update(repr((name, sorted(members[name]))).encode())
        self.version = digest.hexdigest()[:8]
        self._conditions = [pl.sql_expr(rule.when) for rule in rules]
        self._wanted = sorted({name for condition in self._conditions for name in condition.meta.root_names()})
        self._ends = np.array([_ms(rule.expires) for rule in rules], np.int64)
        self._outcomes = np.array([("approve", "review", "decline").index(rule.outcome.value) for rule in rules], np.int8)

    def hits(self, event_time: npt.NDArray[np.int64], field: Field) -> npt.NDArray[np.bool_]:
        """Which rules hold, bool [n, R], for n transactions. ``field`` gives a column by name."""
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
        try:
            found = frame.select(condition.fill_null(False).alias(str(i)) for i, condition in enumerate(self._conditions))
        except pl.exceptions.PolarsError as error:
            raise InputError(f"a rule cannot be evaluated: {str(error).splitlines()[0]}") from None
        held: npt.NDArray[np.bool_] = found.to_numpy().reshape(n, -1) & (event_time[:, None] < self._ends)
        return held

    @property
    def ids(self) -> tuple[str, ...]:
        """The rules' ids, in order."""
        return tuple(rule.id for rule in self.rules)

    def outcomes(
        self, held: npt.NDArray[np.bool_], outcome: npt.NDArray[np.int8], scored: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.int8]:
        """Outcomes int8 [n] after the rules that hold; ``scored`` marks what a model has scored: only that may be approved by rule."""
        raised = np.where(held, self._outcomes, 0).max(axis=1, initial=0)
        approved = (held & (self._outcomes == 0)).any(axis=1) & scored & (raised == 0) & (outcome == 1)
        return np.where(approved, 0, np.maximum(outcome, raised)).astype(np.int8)


def load_rules(path: Path, features: Sequence[str]) -> RuleSet:
    """
    Rules from a TOML file, checked against the features of a spec.

    Raises:
        InputError: naming file, line and reason.
    """
    try:
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
                f"{path}:{line}: a list is named in lower-case letters, digits and _, unlike any feature or field: not {name!r}"
            )
        if listed.key not in TEXT_FIELDS:
            raise InputError(f"{path}:{line}: list {name}: key {listed.key!r} is none of {', '.join(TEXT_FIELDS)}")
        lists[name] = frozenset(listed.values) | _members(path, line, name, listed.file)
    schema = {**known, **dict.fromkeys(source.lists, pl.Boolean)}
    seen: set[str] = set()
    for number, rule in enumerate(source.rules):
        line = _line(text, "[[rules]]", number, "id")
        if not _ID.fullmatch(rule.id) or rule.id in seen:
            raise InputError(f"{path}:{line}: rule ids are letters, digits, _ . and -, each used once: {rule.id!r} is not")
        seen.add(rule.id)
        if not rule.owner.strip():
            raise InputError(f"{path}:{_line(text, '[[rules]]', number, 'owner')}: rule {rule.id} needs an owner")
        if reason := _refused(rule.when, schema):
            raise InputError(f"{path}:{_line(text, '[[rules]]', number, 'when')}: rule {rule.id}: {reason}")
    return RuleSet(source.rules, source.lists, lists, content)


def _members(path: Path, line: int, name: str, file: str) -> frozenset[str]:
    if not file:
        return frozenset()
    try:
        return frozenset(entry.strip() for entry in (path.parent / file).read_text().splitlines() if entry.strip())
    except (OSError, ValueError) as error:
        raise InputError(f"{path}:{line}: list {name}: {error}") from None


def _refused(when: str, schema: Mapping[str, Any]) -> str:
    """Why a condition cannot be used; empty if it can."""
    try:
        condition = pl.sql_expr(when)
        if unknown := [name for name in condition.meta.root_names() if name not in schema]:
            return f"there is no feature, field or list {unknown[0]!r}"
        frame = _tried(schema)
        whole = frame.select(condition.alias("held"))["held"]
        if whole.dtype != pl.Boolean:
            return f"the condition gives {whole.dtype}, not true or false"
        # what a rule says of a transaction must not depend on its neighbours in a batch
        single = pl.concat([frame[i : i + 1].select(condition.alias("held")) for i in range(len(frame))])["held"]
        if not _of_one_row(condition) or len(whole) != len(frame) or not whole.equals(single, null_equal=True):
            return "the condition looks at more than the one transaction, or uses a function that rules may not: use the windows of the features"
    except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
        return str(error).splitlines()[0]
    except BaseException as error:  # a panic inside Polars is no Exception
        if type(error).__name__ != "PanicException":
            raise
        return f"Polars cannot evaluate it ({error})"
    return ""


def _of_one_row(condition: pl.Expr) -> bool:
    """Whether an expression is made of what looks at one row only, by Polars' own form of it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the form may change between versions of Polars: the lock and the tests hold it
        return _plain(json.loads(condition.meta.serialize(format="json")))


def _plain(node: Any) -> bool:
    if isinstance(node, list):
        return all(_plain(part) for part in node)
    if isinstance(node, dict):
        for kind, part in node.items():
            if kind == "Function":
                name, detail = part["function"], None
                if isinstance(name, dict):
                    name, detail = next(iter(name.items()))
                if name not in _FUNCTIONS or (name == "Boolean" and detail not in ("IsNull", "IsNotNull", "Not")):
                    return False
                if not _plain(part["input"]):
                    return False
            elif kind == "Literal":
                continue
            elif (kind[0].isupper() and kind not in _NODES) or not _plain(part):
                return False
        return True
    return bool(node != "Len")


def _tried(schema: Mapping[str, Any]) -> pl.DataFrame:
    """Rows of all kinds: zero, negative, large and unknown values."""
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
    """The line of a key in the n-th table of a header, or of the header itself; 1 if it is not to be found."""
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
    """A column of numbers [n]; NaN is unknown."""
    return pl.Series("", values.astype(np.float64), nan_to_null=True)


def texts(values: Sequence[str | None]) -> pl.Series:
    """A column of words."""
    return pl.Series("", values, pl.String)
