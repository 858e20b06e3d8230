"""
Decode transactions and labels: check the format of their fields, then mask or tokenise sensitive data.

Any producer may write to ``transactions`` and ``labels``, so every field is checked. Checking each field separately would
take longer than the rest of decoding, so the whole batch is scanned first. Messages are checked one by one only if that scan
finds something.
"""

import re
from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import TypeVar

import msgspec
from msgspec import structs

from core.errors import InvalidEvent
from core.messages import (
    COUNTRY_FORM,
    CURRENCY_FORM,
    IDENTIFIER_FORM,
    MCC_FORM,
    Label,
    Transaction,
    decode_label_struct,
    decode_transaction_struct,
)
from core.privacy.masking import OUTSIDER_FIELDS, Privacy, mask_start
from core.privacy.sensitive import holds_sensitive

Decoded = TypeVar("Decoded", Transaction, Label)

_IDENTIFIER = (re.compile(IDENTIFIER_FORM), "printable ASCII characters without leading, trailing or consecutive spaces")
_FORMS = {
    **dict.fromkeys(("transaction_id", "card_id", "merchant_id", "device_id"), _IDENTIFIER),
    "currency": (re.compile(CURRENCY_FORM), "an ISO 4217 currency code: three capital letters"),
    "mcc": (re.compile(MCC_FORM), "an ISO 18245 merchant category code: four digits"),
    "country": (re.compile(COUNTRY_FORM), "an ISO 3166-1 country code: two capital letters"),
}
_ERROR_KEPT = 1_000
_IDENTIFIERS = attrgetter("transaction_id", "card_id", "merchant_id", "device_id", "ip")
_TEXTS = attrgetter("merchant_name", "memo")
_VALUE_JOINT = "x"  # a letter joins the values, so that no number spans two of them


def decode_transactions(raws: Sequence[bytes | None], privacy: Privacy) -> list[Transaction | InvalidEvent]:
    """Decode each record value to a transaction, or to the ``InvalidEvent`` that says why it is invalid."""
    decoded = [_struct(raw, decode_transaction_struct) for raw in raws]
    if _needs_no_change([message for message in decoded if isinstance(message, Transaction)]):
        return decoded
    return [_private_or_error(message, privacy) if isinstance(message, Transaction) else message for message in decoded]


def decode_transaction(raw: bytes | None, privacy: Privacy) -> Transaction:
    """
    Decode one transaction.

    Raises:
        InvalidEvent: if the bytes are not one valid transaction.
    """
    (decoded,) = decode_transactions([raw], privacy)
    if isinstance(decoded, InvalidEvent):
        raise decoded
    return decoded


def decode_label(raw: bytes | None, privacy: Privacy) -> Label:
    """
    Decode one label.

    Raises:
        InvalidEvent: if the bytes are not one valid label.
    """
    decoded = _struct(raw, decode_label_struct)
    if isinstance(decoded, InvalidEvent):
        raise decoded
    return private(decoded, privacy)


def private(message: Decoded, privacy: Privacy) -> Decoded:
    """
    Check the fields of a message and return it with sensitive data masked or tokenised.

    Raises:
        InvalidEvent: if a field is malformed.
        MissingKeyError: if an identifier must be tokenised and no key is set.
    """
    _check_forms(message)
    changes = {}
    for field in OUTSIDER_FIELDS:
        value = getattr(message, field, None)
        if value is not None and (kept := privacy.private(field, value)) != value:
            changes[field] = kept
    return structs.replace(message, **changes) if changes else message


def _struct(raw: bytes | None, decode: Callable[[bytes], Decoded]) -> Decoded | InvalidEvent:
    if raw is None:
        return InvalidEvent("the record has no value")
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return InvalidEvent(mask_start(str(error), _ERROR_KEPT))  # msgspec may quote the whole value


def _needs_no_change(transactions: list[Transaction]) -> bool:
    """
    Return whether all identifiers and codes are well-formed and no field contains sensitive data.

    False means only that each message must be checked separately.
    """
    identifiers = [value for values in map(_IDENTIFIERS, transactions) for value in values if value is not None]
    texts = [value for values in map(_TEXTS, transactions) for value in values if value is not None]
    plain, free = _VALUE_JOINT.join(identifiers), _VALUE_JOINT.join(texts)
    return (
        plain.isascii()
        and plain.isprintable()
        and " " not in plain
        and free.isprintable()
        and not holds_sensitive(plain)
        and not holds_sensitive(free)
        and all(_has_form("currency", code) for code in {t.currency for t in transactions})
        and all(_has_form("mcc", code) for code in {t.mcc for t in transactions})
        and all(_has_form("country", code) for code in {t.country for t in transactions})
    )


def _private_or_error(transaction: Transaction, privacy: Privacy) -> Transaction | InvalidEvent:
    try:
        return private(transaction, privacy)
    except InvalidEvent as error:
        return error


def _has_form(field: str, value: str | None) -> bool:
    return value is None or _FORMS[field][0].fullmatch(value) is not None


def _check_forms(message: Transaction | Label) -> None:
    for field, (_, form) in _FORMS.items():
        if not _has_form(field, getattr(message, field, None)):
            raise InvalidEvent(f"{field} must be {form}")
