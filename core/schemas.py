"""JSON Schemas of the messages, and what would break a reader or a writer of the last ones."""

import json
from pathlib import Path
from typing import Any

import msgspec

from core.errors import InputError
from core.messages import MESSAGES, Message

Schema = dict[str, Any]


def schema_of(message: type[Message]) -> Schema:
    """The JSON Schema (2020-12) of a message."""
    (root,), definitions = msgspec.json.schema_components([message], ref_template="#/$defs/{name}")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}
    return dict(json.loads(json.dumps(schema)))  # defaults as JSON has them: lists, not tuples


def file_name(message: type[Message]) -> str:
    """The name of a message's schema file, with its version."""
    version = next(field.default for field in msgspec.structs.fields(message) if field.name == "v")
    return f"{message.__name__.lower()}.v{version}.json"


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """
    What in ``new`` would break those who read or write by ``old``.

    A field may be added if it is optional. Removing a field, making one required or optional, and any change of a field's
    type or bounds is breaking.
    """
    found: list[str] = []
    for name, before in old["$defs"].items():
        after = new["$defs"].get(name)
        if after is None:
            found.append(f"{name}: removed")
            continue
        if before.get("enum") != after.get("enum"):
            found.append(f"{name}: allowed values changed")
        properties, kept = before.get("properties", {}), after.get("properties", {})
        found += [f"{name}.{field}: removed" for field in properties.keys() - kept.keys()]
        found += [f"{name}.{field}: changed" for field in properties.keys() & kept.keys() if properties[field] != kept[field]]
        required, now_required = set(before.get("required", [])), set(after.get("required", []))
        found += [f"{name}.{field}: became required" for field in now_required - required]
        found += [f"{name}.{field}: became optional" for field in required - now_required]
    return sorted(found)


def export(folder: Path) -> list[Path]:
    """
    Write every message's schema to a folder.

    Raises:
        InputError: if a schema there would change in a breaking way; a new version of the message is needed then.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for message in MESSAGES:
        path, schema = folder / file_name(message), schema_of(message)
        if path.exists() and (broken := breaking_changes(json.loads(path.read_text()), schema)):
            raise InputError(
                f"{path} would change in a breaking way ({'; '.join(broken)}): give the message a new version instead"
            )
        path.write_text(json.dumps(schema, indent=2, sort_keys=True) + "\n")
        written.append(path)
    return written
