"""
The one error tree of whyflag.

    WhyflagError
    ├── SettingsError      a setting is missing or has a bad value
    ├── InputError         a file, flag or mapping that a person gave is wrong
    │   └── MappingError   a column mapping does not fit the file
    ├── InvalidEvent       one record cannot be used; it goes to the dead letters
    │   └── MissingKeyError  an identifier holds a card number and there is no key to tokenise it
    ├── BundleError        a model bundle is missing, incomplete or altered
    ├── DatabaseError      an SQL database cannot be opened or does not answer
    ├── QueueError         the analyst's queue cannot do what was asked
    ├── CasebookError      the index of past cases cannot be used
    ├── LanguageModelError a language model gave no answer of use
    ├── StateError         the log of a partition's state cannot be used
    ├── BrokerError        Kafka cannot be reached or refuses a request
    ├── DeliveryError      an output was not acknowledged; the worker must stop without acking
    └── ProcessError       a process that whyflag started has ended or did not become ready

Every message tells the reader what to do next. The command line prints it without a traceback.
"""


class WhyflagError(Exception):
    """Base of every error that whyflag raises on purpose."""


class SettingsError(WhyflagError):
    """A setting is missing or has a bad value."""


class InputError(WhyflagError):
    """A file, flag or mapping that a person gave is wrong."""


class MappingError(InputError):
    """A column mapping does not fit the file."""


class InvalidEvent(WhyflagError):
    """One record cannot be used: undecodable, invalid or of an unknown version."""


class MissingKeyError(InvalidEvent):
    """An identifier holds a card number or personal data, and no key is set to tokenise it."""


class BundleError(WhyflagError):
    """A model bundle is missing, incomplete or altered."""


class DatabaseError(WhyflagError):
    """An SQL database cannot be opened or does not answer."""


class QueueError(WhyflagError):
    """The analyst's queue cannot do what was asked."""


class CasebookError(WhyflagError):
    """The index of past cases is damaged, of another bundle, or cannot be kept where it should be."""


class LanguageModelError(WhyflagError):
    """A language model gave no answer of use; the message says why in a word or two."""


class StateError(WhyflagError):
    """The log of a partition's state is damaged, or was written for something else."""


class BrokerError(WhyflagError):
    """Kafka cannot be reached or refuses a request."""


class DeliveryError(WhyflagError):
    """An output was not acknowledged by Kafka: the worker must stop without acknowledging its input."""


class ProcessError(WhyflagError):
    """A process that whyflag started has ended or did not become ready; the message shows the end of its output."""
