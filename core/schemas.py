"""JSON Schemas of the messages, and detection of breaking changes to them."""

import json
from pathlib import Path
from typing import Any

import msgspec

from core.errors import InputError
from core.messages import MESSAGES, Message

Schema = dict[str, Any]


def schema_of(message: type[Message]) -> Schema:
    """Return the JSON Schema (2020-12) of a message."""
    (root,), definitions = msgspec.json.schema_components([message], ref_template="#/$defs/{name}")
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **root, "$defs": definitions}
    return dict(json.loads(json.dumps(schema)))  # convert defaults to JSON types: lists, not tuples


def file_name(message: type[Message]) -> str:
    """Return the file name of a message's schema, which includes the message version."""
    version = next(field.default for field in msgspec.structs.fields(message) if field.name == "v")
    return f"{message.__name__.lower()}.v{version}.json"


def breaking_changes(old: Schema, new: Schema) -> list[str]:
    """
    Return the changes in ``new`` that would break readers or writers of ``old``.

    Adding an optional field is allowed. Removing a field, making a field required or optional, and changing its type or
    bounds are breaking changes.
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
        InputError: if an existing schema would change in a breaking way; the message then needs a new version.
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
