"""Mappings from the columns of a file to the fields of a transaction."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import pandas as pd
from msgspec import Meta, Struct

from core.clock import duration_ms
from core.errors import MappingError
from core.messages import Transaction
from core.privacy.sensitive import mask
from training.data.formats import SEPARATORS, DataFile, Format

REQUIRED = ("transaction_id", "event_time", "card_id", "merchant_id", "amount", "currency")
_TOKENISED = ("transaction_id", "card_id", "merchant_id", "device_id", "ip")
AmountUnit = Literal["major", "minor"]
TimeUnit = Literal["datetime", "s", "ms"]
FIELDS = tuple(field for field in Transaction.__struct_fields__ if field != "v")


class LabelColumn(Struct, frozen=True, forbid_unknown_fields=True):
    """
    The label column of a file, and the delay after the event until a label is known.

    ``fraud`` and ``legitimate`` list the cell values that mean fraud and legitimate. Upper and lower case are not distinguished.
    An empty text stands for a blank cell.
    """

    column: str
    delay: str
    fraud: tuple[str, ...] = ("1", "true", "1.0")
    legitimate: tuple[str, ...] = ("0", "false", "0.0")


class PrivateColumns(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Columns of a file that contain private data.

    ``card_number`` columns become tokens, even if a value is not a valid card number. ``personal`` columns are never read. In
    ``free_text`` columns card numbers are masked, even if the field is an identifier.
    """

    card_number: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    free_text: tuple[str, ...] = ()


class Mapping(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A mapping file.

    ``columns`` names the file's column of each field; a name that starts with ``?`` may be missing from the file. ``event_time`` may come
    from two columns, date and time. ``constants`` gives a field one value for all rows; ``values`` translates a column's values.
    ``amount`` is the unit of amounts, major or minor; ``decimal`` is their decimal separator. ``time`` is the form of event
    times: a date and time, or seconds or milliseconds since 1970. ``time_format`` is the ``strptime`` format of a date and time;
    if it is empty, the format is ISO 8601. ``separator`` separates the columns of a CSV file.
    """

    columns: dict[str, str | tuple[str, str]]
    amount: AmountUnit
    time: TimeUnit
    time_format: str = ""
    decimal: Literal[".", ","] = "."
    separator: Annotated[str, Meta(pattern=r'^[^"\r\n\u0080-\U0010ffff]$')] = ","
    constants: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    label: LabelColumn | None = None
    privacy: PrivateColumns = PrivateColumns()

    def sources(self, field: str) -> tuple[str, ...]:
        """Return the file's columns of a field, without the ``?`` that marks an optional column."""
        return tuple(name.removeprefix("?") for name in self._marked(field))

    def _marked(self, field: str) -> tuple[str, ...]:
        given = self.columns.get(field, ())
        return (given,) if isinstance(given, str) else given

    def names(self) -> list[str]:
        """Return every column that the mapping reads, whether the file must have it or not."""
        label = {self.label.column} if self.label else set()
        return sorted({name for field in self.columns for name in self.sources(field)} | label)

    def choose(self, present: list[str], file: DataFile) -> list[str]:
        """
        Return the columns to read from a file that has ``present``.

        Raises:
            MappingError: if columns are missing. The message names them, and the likely cause or the columns of the file.
        """
        needed = {name for field in self.columns for name in self._marked(field) if not name.startswith("?")}
        if self.label:
            needed.add(self.label.column)
        missing = sorted(needed - set(present))
        if missing:
            raise MappingError(f"{file.path} has no column {', '.join(map(repr, missing))}{self._cause(missing, present, file)}")
        return sorted(needed | (set(self.names()) & set(present)))

    def _cause(self, missing: list[str], present: list[str], file: DataFile) -> str:
        """Return the end of an error message about missing columns: the likely cause, or the columns that the file has."""
        if file.form is Format.CSV and len(present) == 1:
            other = next((one for one in SEPARATORS if one != self.separator and one in present[0]), None)
            if other is not None:
                return (
                    f": it has one column, whose name contains {other!r}. Set separator = {json.dumps(other)} in the mapping "
                    "(docs/how-to/mappings.md)"
                )
        if any("\ufffd" in name for name in present):
            return ": the file is not UTF-8. Convert it, for example with `iconv -f latin1 -t utf-8`"
        near = {name: close[0] for name in missing if (close := _nearest(name, present))}
        meant = "".join(f"; did you mean {found!r} for {name!r}?" for name, found in near.items())
        return f"{meant or ';'} it has {mask(', '.join(map(repr, present)))}. Choose another --mapping, or write one (docs/how-to/mappings.md)"


def _nearest(name: str, names: Iterable[str]) -> list[str]:
    """Return the name that is most similar to ``name``, ignoring case, in a list; the list is empty if none is similar."""
    by_lower = {one.lower(): one for one in names}
    return [by_lower[found] for found in difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=0.6)]


def included_mappings() -> list[str]:
    """Return the names of the mappings included in whyflag."""
    return sorted(path.name.removesuffix(".toml") for path in resources.files("training.data").joinpath("mappings").iterdir())


def load_mapping(name: str) -> Mapping:
    """
    Load an included mapping by its name, or any mapping by the path of its TOML file.

    Raises:
        MappingError: if the mapping does not exist or is invalid. The message says where.
    """
    if name in included_mappings():
        raw = resources.files("training.data").joinpath("mappings", f"{name}.toml").read_bytes()
    elif Path(name).is_file():
        raw = Path(name).read_bytes()
    else:
        raise MappingError(
            f"no mapping {name!r}: give the path of a TOML file or an included name: {', '.join(included_mappings())}"
        )
    try:
        mapping = msgspec.convert(tomllib.loads(raw.decode()), Mapping)
        if mapping.label and duration_ms(mapping.label.delay) <= 0:
            raise ValueError("label.delay must be longer than zero: a label is not known when its transaction is scored")
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, ValueError) as error:
        raise MappingError(f"mapping {name}: {error}") from None
    _check_privacy(name, mapping)
    unknown = sorted((mapping.columns.keys() | mapping.constants.keys() | mapping.values.keys()) - set(FIELDS))
    if unknown:
        near = _nearest(unknown[0], FIELDS)
        meant = f"did you mean {near[0]}? Fields" if near else "fields"
        raise MappingError(f"mapping {name}: no such field {', '.join(unknown)}; {meant} are {', '.join(FIELDS)}")
    if doubled := sorted(field for field in mapping.columns if len(mapping.sources(field)) > 1 and field != "event_time"):
        raise MappingError(f"mapping {name}: only event_time may come from two columns, {doubled[0]} may not")
    try:
        pd.to_datetime(["2024-01-31"], format=mapping.time_format or None, errors="coerce", utc=True)
    except (ValueError, re.error) as error:
        raise MappingError(f"mapping {name}: time_format {mapping.time_format!r} is not a format for strptime: {error}") from None
    if mapping.time_format and mapping.time != "datetime":
        raise MappingError(f'mapping {name}: time_format needs time = "datetime", not {mapping.time!r}')
    absent = [field for field in REQUIRED if field not in mapping.columns and field not in mapping.constants]
    if absent:
        raise MappingError(f"mapping {name}: the required field {', '.join(absent)} has neither a column nor a constant")
    return mapping


def _check_privacy(name: str, mapping: Mapping) -> None:
    read, declared = set(mapping.names()), mapping.privacy
    if both := sorted(read & set(declared.personal)):
        raise MappingError(f"mapping {name}: column {both[0]!r} is declared personal and never read: no field can use it")
    if absent := sorted((set(declared.card_number) | set(declared.free_text)) - read):
        raise MappingError(f"mapping {name}: column {absent[0]!r} is declared private, but no field uses it")
    numbers = {field for field in mapping.columns if set(mapping.sources(field)) & set(declared.card_number)}
    if wrong := sorted(numbers - set(_TOKENISED)):
        raise MappingError(f"mapping {name}: {wrong[0]} cannot be a token, so its column cannot be declared as a card number")
