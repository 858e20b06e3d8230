"""
Transactions and labels from the wire: checked, and private from here on.

Everybody may write to ``transactions`` and ``labels``, so what comes from there is checked to the letter: form of identifiers and
codes, card numbers tokenised, card numbers in free text masked. A regular expression a field would take longer than all the rest of
decoding, so a whole batch is asked first whether there is anything to look at; only then is each message looked at by itself.
"""

import re
from collections.abc import Callable, Sequence
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
from core.privacy import is_pan, may_hold_pan, pan_token, redact, redact_start

Decoded = TypeVar("Decoded", Transaction, Label)

_IDENTIFIER = (re.compile(IDENTIFIER_FORM), "printable ASCII characters, with no space at its ends and no two in a row")
_FORMS = {
    **dict.fromkeys(("transaction_id", "card_id", "merchant_id", "device_id"), _IDENTIFIER),
    "currency": (re.compile(CURRENCY_FORM), "a currency's three capital letters (ISO 4217)"),
    "mcc": (re.compile(MCC_FORM), "the four digits of a merchant category code (ISO 18245)"),
    "country": (re.compile(COUNTRY_FORM), "a country's two capital letters (ISO 3166-1)"),
}
_ERROR_KEPT = 1_000
_TEXTS = ("merchant_name", "memo", "device_id")


def decode_transactions(raws: Sequence[bytes | None], pan_key: bytes) -> list[Transaction | InvalidEvent]:
    """For each record's value its transaction, or why it is none."""
    decoded = [_struct(raw, decode_transaction_struct) for raw in raws]
    if _unremarkable([message for message in decoded if isinstance(message, Transaction)]):
        return decoded
    return [_private(message, pan_key) if isinstance(message, Transaction) else message for message in decoded]


def decode_transaction(raw: bytes | None, pan_key: bytes) -> Transaction:
    """
    One transaction.

    Raises:
        InvalidEvent: if the bytes are not one valid transaction.
    """
    (decoded,) = decode_transactions([raw], pan_key)
    if isinstance(decoded, InvalidEvent):
        raise decoded
    return decoded


def decode_label(raw: bytes | None, pan_key: bytes) -> Label:
    """
    A label, its card number tokenised.

    Raises:
        InvalidEvent: if the bytes are not one valid label.
    """
    decoded = _struct(raw, decode_label_struct)
    if isinstance(decoded, InvalidEvent):
        raise decoded
    return private_label(decoded, pan_key)


def private_label(label: Label, pan_key: bytes) -> Label:
    """
    The label with its card number tokenised.

    Raises:
        InvalidEvent: if an identifier is none, or ``card_id`` is a raw card number and there is no key.
    """
    _check_forms(label)
    return structs.replace(label, card_id=pan_token(label.card_id, pan_key)) if is_pan(label.card_id) else label


def _struct(raw: bytes | None, decode: Callable[[bytes], Decoded]) -> Decoded | InvalidEvent:
    if raw is None:
        return InvalidEvent("the record has no value")
    try:
        return decode(raw)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return InvalidEvent(redact_start(str(error), _ERROR_KEPT))  # msgspec may quote the whole value


def _unremarkable(transactions: list[Transaction]) -> bool:
    """
    Whether all identifiers and codes have their form, and nothing in sight could be a card number.

    False says only that each message must be looked at.
    """
    identifiers = "".join([t.transaction_id + t.card_id + t.merchant_id for t in transactions])
    devices = [t.device_id for t in transactions if t.device_id is not None]
    texts = [text for t in transactions for text in (t.merchant_name, t.memo) if text is not None]
    plain = identifiers + "".join(devices)
    return (
        plain.isascii()
        and plain.isprintable()
        and " " not in plain
        and not any(len(t.card_id) >= 12 and t.card_id[0].isdigit() for t in transactions)
        and not may_hold_pan("\n".join(texts + devices))
        and all(_has_form("currency", code) for code in {t.currency for t in transactions})
        and all(_has_form("mcc", code) for code in {t.mcc for t in transactions})
        and all(_has_form("country", code) for code in {t.country for t in transactions})
    )


def _private(transaction: Transaction, pan_key: bytes) -> Transaction | InvalidEvent:
    try:
        _check_forms(transaction)
        changes = {name: redact(text) for name in _TEXTS if (text := getattr(transaction, name)) is not None}
        if is_pan(transaction.card_id):
            changes["card_id"] = pan_token(transaction.card_id, pan_key)
    except InvalidEvent as error:
        return error
    return structs.replace(transaction, **changes) if changes else transaction


def _has_form(field: str, value: str | None) -> bool:
    return value is None or _FORMS[field][0].fullmatch(value) is not None


def _check_forms(message: Transaction | Label) -> None:
    for field, (_, form) in _FORMS.items():
        if not _has_form(field, getattr(message, field, None)):
            raise InvalidEvent(f"{field} must be {form}")
