"""Write the pages of the reference that follow from the code: settings, metrics, messages and commands. Run by ``make reference``."""

import importlib
import inspect
from pathlib import Path
from typing import Annotated, get_args, get_origin, get_type_hints

import click

from cli.main import COMMANDS
from core.messages import MESSAGES, Message
from core.metrics import CATALOGUE, Program
from core.schemas import Schema, file_name, schema_of
from core.settings import SECRETS, Settings

HERE = Path(__file__).parent / "reference"
NOTE = "<!-- Made by `make reference` from the code; do not edit. -->\n\n"


def settings_page() -> str:
    """Return the page of all settings."""
    rows = []
    for name, hint in get_type_hints(Settings, include_extras=True).items():
        meta = next((one for one in get_args(hint)[1:] if getattr(one, "description", None)), None)
        default = getattr(Settings(), name)
        shown = str(default).lower() if isinstance(default, bool) else str(default)
        secret = " (secret)" if name in SECRETS else ""
        meaning = (meta.description if meta and get_origin(hint) is Annotated else "").replace("|", "\\|")
        rows.append(f"| `WHYFLAG_{name.upper()}` | {f'`{shown}`' if shown else ''} | {meaning}{secret} |")
    return (
        NOTE
        + "# Settings\n\n"
        + "Settings are environment variables. A command reads them once, when it starts. An unknown `WHYFLAG_` variable or a bad value is an\n"
        + "error. Each setting can come from a file instead: `WHYFLAG_PAN_KEY_FILE=/run/secrets/pan_key`. Secrets are never printed.\n\n"
        + "| variable | default | meaning |\n|---|---|---|\n"
        + "\n".join(rows)
        + "\n"
    )


def metrics_page() -> str:
    """Return the catalogue of all metrics."""
    rows = []
    for entry in CATALOGUE:
        (family,) = entry.collector.describe()
        name = f"{family.name}_total" if family.type == "counter" else family.name
        labels = ", ".join(f"`{label}`" for label in entry.labels)
        programs = "all" if len(entry.programs) == len(Program) else ", ".join(entry.programs)
        rows.append(f"| `{name}` | {family.type} | {labels} | {programs} | {family.documentation} |")
    return (
        NOTE
        + "# Metrics\n\n"
        + "A worker serves its metrics at `/metrics` on `WHYFLAG_METRICS_PORT`, the console on its own port. Each process also serves\n"
        + "`/live` and `/ready`. Times are in seconds and sizes in bytes. A gauge that has not been measured is absent.\n\n"
        + "| metric | type | labels | served by | meaning |\n|---|---|---|---|---|\n"
        + "\n".join(sorted(rows))
        + "\n"
    )


def _type_of(schema: Schema) -> str:
    if "$ref" in schema:
        return f"`{schema['$ref'].rsplit('/', 1)[1]}`"
    if "anyOf" in schema:
        return " or ".join(_type_of(one) for one in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type_of(schema.get('items') or {})}"
    return str(schema.get("type", "any"))


def _message(message: type[Message]) -> str:
    schema = schema_of(message)
    body = schema["$defs"][message.__name__]
    rows = []
    for name, field in body["properties"].items():
        needed = "yes" if name in body.get("required", []) else ""
        bounds = ", ".join(
            f"{word} {field[key]}"
            for key, word in (("minimum", "from"), ("maximum", "to"), ("maxLength", "at most, characters:"))
            if key in field
        )
        rows.append(
            f"| `{name}` | {_type_of(field)} | {needed} | {field.get('description', '')}{f' ({bounds})' if bounds else ''} |"
        )
    return (
        f"## {message.__name__}\n\n{inspect.cleandoc(message.__doc__ or '')}\n\n"
        f"Schema: [{file_name(message)}](../schemas/{file_name(message)})\n\n"
        "| field | type | required | meaning |\n|---|---|---|---|\n" + "\n".join(rows) + "\n"
    )


def messages_page() -> str:
    """Return the page of all messages."""
    return (
        NOTE
        + "# Messages\n\n"
        + "Messages are JSON. Times are epoch milliseconds UTC, money is in minor units (cents) with an ISO 4217 code, probabilities are in\n"
        + "[0, 1]. Fields that are not required may be left out.\n\n"
        + "The topic `profiled` lies between the two stages of a scoring worker. Its records are MessagePack with columns, described in\n"
        + "`streams/profiled.py`; only workers of the same version read and write them.\n\n"
        + "\n".join(_message(message) for message in MESSAGES)
    )


def _commands(name: str, command: click.Command, depth: int) -> str:
    context = click.Context(command, info_name=name, terminal_width=110, max_content_width=110)
    page = f"{'#' * depth} {name}\n\n```text\n{command.get_help(context)}\n```\n\n"
    if isinstance(command, click.Group):
        for child in command.list_commands(context):
            found = command.get_command(context, child)
            assert found is not None
            page += _commands(f"{name} {child}", found, depth + 1)
    return page


def commands_page() -> str:
    """Return the page of all commands."""
    page = NOTE + "# Commands\n\n"
    for name, command in COMMANDS.items():
        page += _commands(f"whyflag {name}", importlib.import_module(command.module).command, 2)
    return page.rstrip() + "\n"


def pages() -> dict[Path, str]:
    """Return the content of each generated page."""
    return {
        HERE / "settings.md": settings_page(),
        HERE / "metrics.md": metrics_page(),
        HERE / "messages.md": messages_page(),
        HERE / "commands.md": commands_page(),
    }


def main() -> None:
    """Write the pages."""
    for path, content in pages().items():
        path.write_text(content)


if __name__ == "__main__":
    main()
