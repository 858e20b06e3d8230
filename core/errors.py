"""
Exception hierarchy of whyflag.

    WhyflagError
    ├── SettingsError      a setting is missing or has an invalid value
    ├── InputError         a file, flag or mapping given by the user is invalid
    │   └── MappingError   a column mapping does not match the file
    ├── InvalidEvent       a record cannot be processed; it goes to the dead-letter topic
    │   └── MissingKeyError  an identifier contains sensitive data and no key is set to tokenise it
    ├── BundleError        a model bundle is missing, incomplete or altered
    ├── DatabaseError      an SQL database cannot be opened or does not answer
    │   └── AuditKeyError  the audit trail in the database is signed with another key
    ├── QueueError         the analyst's queue cannot perform an operation
    │   ├── NotFoundError  there is no such alert, view or proposal
    │   └── ConflictError  somebody else has changed or claimed it in the meantime
    │       └── VerdictConflict  somebody else has judged the alert in the meantime
    ├── AccessError        a person may not do this
    │   ├── SignInError    a name, password, link or token is wrong
    │   │   └── SignInNeeded  nobody is signed in
    │   └── ThrottledError there were too many attempts or questions: try again later
    ├── CasebookError      the index of past cases cannot be used
    ├── LanguageModelError a language model returned no usable answer
    ├── StateError         a worker cannot use its topics, partitions or checkpoint log
    ├── BrokerError        Kafka cannot be reached or refuses a request
    ├── DeliveryError      an output was not acknowledged; the worker must stop without acking
    └── ProcessError       a process that whyflag started has ended or did not become ready

Every message tells the reader what to do next. The command line prints it without a traceback.
"""

from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from core.messages import Opinion, Verdict


class WhyflagError(Exception):
    """Base class of all errors that whyflag raises deliberately."""


class SettingsError(WhyflagError):
    """A setting is missing or has an invalid value."""


class InputError(WhyflagError):
    """A file, flag or mapping given by the user is invalid."""


class MappingError(InputError):
    """A column mapping does not match the file."""


class Refusal(StrEnum):
    """Why a record went to the dead letters; a label of ``whyflag_dead_letters_total``."""

    MALFORMED = "malformed"  # not valid JSON of a known version, or a value outside its bounds
    FROM_THE_FUTURE = "from_the_future"
    NO_PAN_KEY = "no_pan_key"
    OTHER_SPEC = "other_spec"  # profiled with another feature spec than the worker's
    OTHER_FORMAT = "other_format"  # written to an internal topic by another version of whyflag
    DATABASE = "database"  # the database rejects a value
    NOT_EXPLAINABLE = "not_explainable"


class InvalidEvent(WhyflagError):
    """A record cannot be decoded, is invalid, or has an unknown version."""

    def __init__(self, message: str, reason: Refusal = Refusal.MALFORMED) -> None:
        super().__init__(message)
        self.reason = reason


class MissingKeyError(InvalidEvent):
    """An identifier contains a card number or personal data, and no key is set to tokenise it."""

    def __init__(self, message: str) -> None:
        super().__init__(message, Refusal.NO_PAN_KEY)


class BundleError(WhyflagError):
    """A model bundle is missing, incomplete or altered."""


class DatabaseError(WhyflagError):
    """An SQL database cannot be opened or does not answer."""


class AuditKeyError(DatabaseError):
    """The last entry of the audit trail was changed, or is signed with another key than this program's."""


class QueueError(WhyflagError):
    """The analyst's queue cannot perform the requested operation."""


class NotFoundError(QueueError):
    """There is no such alert, view, proposal or other object."""


class ConflictError(QueueError):
    """Somebody else has changed or claimed the object in the meantime, or its state does not allow the operation."""


class VerdictConflict(ConflictError):
    """
    Somebody else has judged the alert in the meantime.

    ``theirs`` is the verdict that counts, None if there is none any more. ``mine`` is the opinion that was refused. ``version`` is the
    alert's present version.
    """

    def __init__(self, alert_id: str, version: int, theirs: "Verdict | None", mine: "Opinion") -> None:
        super().__init__(f"alert {alert_id} has changed since you opened it: look at the new state and decide again")
        self.alert_id, self.version, self.theirs, self.mine = alert_id, version, theirs, mine


class AccessError(WhyflagError):
    """A person's role does not allow the operation."""


class SignInError(AccessError):
    """A name, password, link or token is wrong or has expired."""


class SignInNeeded(SignInError):
    """Nobody is signed in."""


class ThrottledError(AccessError):
    """There were too many attempts or questions; the message says how long to wait."""


class CasebookError(WhyflagError):
    """The index of past cases is damaged, belongs to another bundle, or cannot be stored at its configured location."""


class LanguageModelError(WhyflagError):
    """A language model returned no usable answer; the message is a short reason."""


class StateError(WhyflagError):
    """A worker's topics, partitions or checkpoint log are missing, damaged or do not match its configuration."""


class BrokerError(WhyflagError):
    """Kafka cannot be reached or refuses a request."""


class DeliveryError(WhyflagError):
    """Kafka did not acknowledge an output; the worker must stop without acknowledging its input."""


class ProcessError(WhyflagError):
    """A process that whyflag started has ended or did not become ready; the message shows the end of its output."""
