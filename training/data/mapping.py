"""Mappings from the columns of a file to the fields of a transaction."""

import tomllib
from importlib import resources
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from core.clock import duration_ms
from core.errors import MappingError
from core.messages import Transaction
from core.privacy.sensitive import mask

REQUIRED = ("transaction_id", "event_time", "card_id", "merchant_id", "amount", "currency")
_TOKENISED = ("transaction_id", "card_id", "merchant_id", "device_id", "ip")
FIELDS = tuple(field for field in Transaction.__struct_fields__ if field != "v")


class LabelColumn(Struct, frozen=True, forbid_unknown_fields=True):
    """The label column of a file (1 or true for fraud), and the delay after the event until a label is known."""

    column: str
    delay: str


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

    ``columns`` maps a field to a column of the file; a column whose name starts with ``?`` may be missing. ``constants`` gives a
    field the same value in all rows. ``values`` translates the values of a field. ``amount`` says whether amounts are in major or
    minor units. ``time`` says whether times are dates with a time, or seconds or milliseconds since 1970.
    """

    columns: dict[str, str]
    amount: Literal["major", "minor"]
    time: Literal["datetime", "s", "ms"]
    constants: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    label: LabelColumn | None = None
    privacy: PrivateColumns = PrivateColumns()

    def column(self, field: str) -> str | None:
        """Return the file's column for a field, without the leading ``?``; None if the field has no column."""
        name = self.columns.get(field)
        return name.removeprefix("?") if name else None

    def names(self) -> list[str]:
        """Return all columns that the mapping reads, required and optional."""
        label = {self.label.column} if self.label else set()
        return sorted({name.removeprefix("?") for name in self.columns.values()} | label)

    def wanted(self, present: list[str], where: Path) -> list[str]:
        """
        Return the columns to read from a file that has the columns ``present``.

        Raises:
            MappingError: if a required column is missing. The message names the missing and the present columns.
        """
        needed = {name for name in self.columns.values() if not name.startswith("?")}
        if self.label:
            needed.add(self.label.column)
        missing = sorted(needed - set(present))
        if missing:
            raise MappingError(
                f"{where} has no column {', '.join(map(repr, missing))}; it has {mask(', '.join(map(repr, present)))}. "
                "Choose another --mapping, or write one (docs/mappings.md)"
            )
        optional = {name.removeprefix("?") for name in self.columns.values()} & set(present)
        return sorted(needed | optional)


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
        raise MappingError(f"mapping {name}: no such field {', '.join(unknown)}; fields are {', '.join(FIELDS)}")
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
    numbers = {field for field, column in mapping.columns.items() if column.removeprefix("?") in declared.card_number}
    if wrong := sorted(numbers - set(_TOKENISED)):
        raise MappingError(f"mapping {name}: {wrong[0]} cannot be a token, so its column cannot be declared as a card number")
