"""How the columns of somebody's file become the fields of a transaction."""

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
    """A column of the file that says fraud (1, true) or not, and how long after the event it became known."""

    column: str
    delay: str


class PrivateColumns(Struct, frozen=True, forbid_unknown_fields=True):
    """
    Columns of the file that need care: ``card_number`` ones become tokens, even if a value is no valid card number; ``personal`` ones
    are never read; in ``free_text`` ones card numbers are masked, even where the field is an identifier.
    """

    card_number: tuple[str, ...] = ()
    personal: tuple[str, ...] = ()
    free_text: tuple[str, ...] = ()


class Mapping(Struct, frozen=True, forbid_unknown_fields=True):
    """
    A mapping file.

    ``columns`` names the file's column of each field; a name that starts with ``?`` may be missing from the file. ``constants``
    gives a field one value for all rows; ``values`` translates a column's values. ``amount`` is in major or minor units;
    ``time`` is a date and time, or seconds or milliseconds since 1970.
    """

    columns: dict[str, str]
    amount: Literal["major", "minor"]
    time: Literal["datetime", "s", "ms"]
    constants: dict[str, str] = {}
    values: dict[str, dict[str, str]] = {}
    label: LabelColumn | None = None
    privacy: PrivateColumns = PrivateColumns()

    def column(self, field: str) -> str | None:
        """The file's column for a field, without the mark of an optional one."""
        name = self.columns.get(field)
        return name.removeprefix("?") if name else None

    def names(self) -> list[str]:
        """Every column the mapping reads, whether the file must have it or not."""
        label = {self.label.column} if self.label else set()
        return sorted({name.removeprefix("?") for name in self.columns.values()} | label)

    def wanted(self, present: list[str], where: Path) -> list[str]:
        """
        The columns to read from a file that has ``present``.

        Raises:
            MappingError: naming each missing column and what there is.
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
    """Names of the mappings that come with whyflag."""
    return sorted(path.name.removesuffix(".toml") for path in resources.files("training.data").joinpath("mappings").iterdir())


def load_mapping(name: str) -> Mapping:
    """
    A mapping by the name of an included one or the path of a TOML file.

    Raises:
        MappingError: if there is none, or it is wrong; the message names the place.
    """
    if name in included_mappings():
        raw = resources.files("training.data").joinpath("mappings", f"{name}.toml").read_bytes()
    elif Path(name).is_file():
        raw = Path(name).read_bytes()
    else:
        raise MappingError(
            f"no mapping {name!r}: give the path of a TOML file or one of the included ones: {', '.join(included_mappings())}"
        )
    try:
        mapping = msgspec.convert(tomllib.loads(raw.decode()), Mapping)
        if mapping.label and duration_ms(mapping.label.delay) <= 0:
            raise ValueError("label.delay must be longer than nothing: a label is not known when its transaction is scored")
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
        raise MappingError(
            f"mapping {name}: column {both[0]!r} is declared personal, so it is never read: no field can come from it"
        )
    if absent := sorted((set(declared.card_number) | set(declared.free_text)) - read):
        raise MappingError(f"mapping {name}: column {absent[0]!r} is declared private, but no field comes from it")
    numbers = {field for field, column in mapping.columns.items() if column.removeprefix("?") in declared.card_number}
    if wrong := sorted(numbers - set(_TOKENISED)):
        raise MappingError(f"mapping {name}: {wrong[0]} cannot be a token, so its column cannot be declared as a card number")
