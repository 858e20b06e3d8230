"""
Logs of the long-running programs: one line per event, as JSON or, on a terminal, as plain text.

All lines have the same form, also those of Faust, aiokafka and uvicorn. ``bound`` adds ids to every line that a block writes. Card
numbers and personal data are masked in each line, and the fields of a message that may hold them are removed.
"""

import logging
import math
import sys
import threading
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

import structlog
from msgspec import Struct, structs

from core.metrics import VERSION, Program
from core.privacy.masking import FIELD_KINDS
from core.privacy.sensitive import mask
from core.settings import Settings

OWN_PACKAGES: Final = ("core", "models", "explain", "analyst", "training", "streams", "cli", "whyflag")
# Faust and Mode warn about whyflag's normal setup: no topic leader and no declared topics
_QUIET: Final = ("faust", "mode")
_REPEATED_SECONDS = 10
_PRIVATE: Final = frozenset(FIELD_KINDS) - {"transaction_id"}  # by this id, which is opaque, the lines of one event are found
# structlog's own, which are removed before a line is written, and addresses of the console, whose digits may look like a card number
_AS_IT_IS: Final = ("_record", "_from_structlog", "link")
_DEPTH: Final = 5

_Event = MutableMapping[str, Any]


class NoiseFilter(logging.Filter):
    """
    Pass each message of a Kafka client at most once in ten seconds, because clients repeat messages while a broker is down. Mode's
    lines about its services, such as ``[^-App]: Flush producer buffer...``, pass only if they are warnings.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last_logged: dict[tuple[str, str], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether a record passes."""
        if str(record.msg).startswith("[^") and record.levelno < logging.WARNING:
            return False
        if not record.name.startswith(("aiokafka", "kafka")):
            return True
        what = (record.name, str(record.msg))
        if record.created - self._last_logged.get(what, 0.0) < _REPEATED_SECONDS:
            return False
        self._last_logged[what] = record.created
        return True


_handler: Final = logging.StreamHandler()
_handler.addFilter(NoiseFilter())


def remove_private(_: Any, __: str, event: _Event) -> _Event:
    """Remove the fields that may hold personal data, and mask such data in all values. A structlog processor."""
    return {
        name: value if name in _AS_IT_IS else _without_private(value) for name, value in event.items() if name not in _PRIVATE
    }


def _without_private(value: Any, depth: int = 0) -> Any:
    """Return a value of JSON without personal data. A message is shown as its fields, any other object as its ``repr``."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int | float):
        shown = mask(str(int(value)) if math.isfinite(value) and value == int(value) else str(value))
        return value if "[" not in shown else shown
    if depth < _DEPTH:  # a value may contain itself
        if isinstance(value, Struct):
            value = structs.asdict(value)
        if isinstance(value, Mapping):
            return {mask(str(name)): _without_private(one, depth + 1) for name, one in value.items() if name not in _PRIVATE}
        if isinstance(value, list | tuple | set | frozenset):
            return [_without_private(one, depth + 1) for one in value]
    try:
        return mask(value if isinstance(value, str) else repr(value))
    except Exception as error:  # a line must not fail because of a value
        return f"[a {type(value).__name__} that cannot be shown: {type(error).__name__}]"


def set_up_logs(program: Program, settings: Settings) -> None:
    """
    Send the logs of this process to standard error, and write a first line with the program's version.

    ``log_level`` is the level of whyflag's own packages. Libraries write warnings and errors only, unless it is ``debug``.
    """

    def program_added(_: Any, __: str, event: _Event) -> _Event:
        event["program"] = program.value  # not a bound value: threads of libraries log, too
        return event

    level = settings.log_level.upper()
    terminal = sys.stderr.isatty()
    plain = terminal if settings.log_format == "auto" else settings.log_format == "plain"
    renderer = structlog.dev.ConsoleRenderer(colors=terminal) if plain else structlog.processors.JSONRenderer(ensure_ascii=False)
    every_line: list[structlog.types.Processor] = [
        structlog.contextvars.merge_contextvars,
        program_added,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
        remove_private,
        structlog.processors.TimeStamper(fmt="iso", utc=True),  # after the masking: its digits may look like a card number
    ]
    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=every_line, processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer]
    )
    _handler.setStream(sys.stderr)
    _handler.setFormatter(formatter)
    logging.basicConfig(level=level if level == "DEBUG" else "WARNING", handlers=[_handler], force=True)
    for package in OWN_PACKAGES:
        logging.getLogger(package).setLevel(level)
    for package in _QUIET:
        logging.getLogger(package).setLevel(level if level == "DEBUG" else "ERROR")
    logging.captureWarnings(True)
    sys.excepthook = _unexpected
    threading.excepthook = lambda raised: _unexpected(raised.exc_type, raised.exc_value, raised.exc_traceback)
    own = logging.getLogger("whyflag")
    own.info("whyflag %s started: %s", VERSION, program.value)


def log_end(error: Exception) -> bool:
    """Log the error that ends this process, if its logs are set up; return whether they are."""
    if _handler not in logging.getLogger().handlers:
        return False
    logging.getLogger("whyflag").critical("stopped: %s", error)
    return True


def _unexpected(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> None:
    if not issubclass(kind, SystemExit):  # a thread may end itself
        logging.getLogger("whyflag").critical("an unexpected error", exc_info=(kind, error, trace) if error else None)


@contextmanager
def bound(**ids: str) -> Iterator[None]:
    """Add ids, such as ``alert_id``, to every line that is logged inside the block, also from threads that it starts."""
    with structlog.contextvars.bound_contextvars(**ids):
        yield
