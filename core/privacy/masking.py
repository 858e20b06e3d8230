"""
Tokenise or mask card numbers and personal data in messages. This module alone decides how each field is protected.

The stream, the file readers, ``produce``, the console's notes and the dead letters all use this module. An identifier that
contains a card number, an e-mail address or a social security number is replaced with a keyed token. Different identifiers
get different tokens, equal identifiers get equal tokens, and a token cannot be reversed without the key. In free text, the
same data is masked. PCI DSS 3.4 allows the last four digits of a card number to be shown.

A card number (PAN) is 12 to 19 digits, with or without separators, that pass the Luhn check (ISO/IEC 7812-1, annex B).
"""

import hashlib
import hmac
import ipaddress
import re
import unicodedata
from enum import Enum, auto
from typing import Final

from core.errors import MissingKeyError
from core.privacy.sensitive import holds_sensitive, mask

# The hash in a token is encoded in letters, so that a token contains no card number and a second pass leaves it unchanged.
_LETTERS = str.maketrans("0123456789", "ghijklmnop")
_ESCAPES = re.compile(r'(\\[untrbf"\\])|\\')  # JSON escapes, and backslashes that start no escape
_LONGEST_ESCAPE = 6  # characters of \\uXXXX
_LOOKAHEAD = 256  # characters scanned beyond a cut, so that a number of ordinary length is masked completely
_SHORTEST_CARD = 12  # digits; a shorter number is not a card number, so its last four digits must not be shown


class FieldKind(Enum):
    """How a field is protected."""

    CARD = auto()  # the card's identifier: every notation of a card number gets the same token
    IDENTIFIER = auto()
    ADDRESS = auto()  # an IP address
    TEXT = auto()


FIELD_KINDS: Final = {
    "card_id": FieldKind.CARD,
    "transaction_id": FieldKind.IDENTIFIER,
    "merchant_id": FieldKind.IDENTIFIER,
    "device_id": FieldKind.IDENTIFIER,
    "ip": FieldKind.ADDRESS,
    "merchant_name": FieldKind.TEXT,
    "memo": FieldKind.TEXT,
    "note": FieldKind.TEXT,
    "typology": FieldKind.TEXT,
}
OUTSIDER_FIELDS: Final = tuple(field for field in FIELD_KINDS if field not in ("note", "typology"))


# Maximum lengths of texts, in characters. A masked text is cut to its limit, because a mask may be longer than the text it
# replaces.
TEXT_LIMITS: Final = {"merchant_name": 512, "memo": 512, "note": 2000, "typology": 64}


class Privacy:
    """Tokenises and masks values with one key."""

    def __init__(self, key: bytes = b"") -> None:
        """Without a key, the first identifier that must be tokenised raises ``MissingKeyError``."""
        self._key = key

    @property
    def fingerprint(self) -> str:
        """Identifier of the key that does not reveal it: 16 hexadecimal digits, or empty without a key."""
        return hmac.new(self._key, b"whyflag key fingerprint", hashlib.sha256).hexdigest()[:16] if self._key else ""

    def private(self, field: str, value: str) -> str:
        """
        Return a field's value with card numbers and personal data tokenised or masked.

        Raises:
            MissingKeyError: if an identifier must be tokenised and there is no key.
        """
        kind = FIELD_KINDS[field]
        value = without_controls(value)
        if kind is FieldKind.TEXT:
            return mask(value)[: TEXT_LIMITS[field]]
        if (kind is FieldKind.ADDRESS and _is_ipv4(value)) or not holds_sensitive(value):
            return value
        return self.token(field, value)

    def text(self, value: str) -> str:
        """Return free text with card numbers and personal data masked and control characters removed."""
        return self.private("memo", value)

    def token(self, field: str, value: str) -> str:
        """
        Return the token of an identifier: ``id_`` and 24 letters. The token of a card identifier with at least 12 digits is
        ``pan_``, 24 letters, ``_`` and the last four digits.

        Raises:
            MissingKeyError: if there is no key.
        """
        digits = "".join(str(unicodedata.decimal(one)) for one in value if unicodedata.decimal(one, None) is not None)
        if FIELD_KINDS[field] is not FieldKind.CARD or len(digits) < _SHORTEST_CARD:
            return self._keyed("id", value)
        is_number = not any(one.isalpha() for one in value)  # digits and separators only: hash the digits
        return f"{self._keyed('pan', digits if is_number else value)}_{digits[-4:]}"

    def _keyed(self, prefix: str, value: str) -> str:
        if not self._key:
            raise MissingKeyError(
                "an identifier holds a card number or personal data and no key is set to tokenise it: set WHYFLAG_PAN_KEY (or "
                "WHYFLAG_PAN_KEY_FILE) to a secret of at least 16 characters, the same in every process"
            )
        digest = hmac.new(self._key, f"{prefix}:{value}".encode(), hashlib.sha256).hexdigest()
        return f"{prefix}_{digest[:24].translate(_LETTERS)}"


WITHOUT_KEY: Final = Privacy()


def without_controls(text: str) -> str:
    """Return a text without control characters and lone surrogates, which databases reject. Tabs and line breaks stay."""
    if text.isprintable():
        return text
    return "".join(one for one in text if one in "\t\n" or unicodedata.category(one) not in ("Cc", "Cs"))


def mask_start(text: str, kept: int) -> str:
    """Return at most ``kept`` characters from the start of a text, masked. A number that crosses the cut is masked completely."""
    return mask(text[: kept + _LOOKAHEAD])[:kept]


def mask_bytes(raw: bytes, kept: int) -> bytes:
    """
    Return at most ``kept`` bytes from the start of a record, masked, for dead letters. JSON escapes are decoded first, so
    that they cannot hide anything. Invalid UTF-8 becomes the replacement character.
    """
    start = raw[: kept + _LOOKAHEAD]
    escaped = b"\\" in start
    if escaped:
        start = raw[: kept + _LONGEST_ESCAPE * _LOOKAHEAD]
    text = start.decode("utf-8", "replace")
    if escaped:
        plain = _ESCAPES.sub(r"\1", text).encode("latin-1", "backslashreplace")
        text = plain.decode("unicode_escape", "replace")
    return mask(text).encode("utf-8", "replace")[:kept]


def _is_ipv4(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
