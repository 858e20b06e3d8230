"""
Card numbers and personal text: a raw PAN never travels.

A card number (PAN) is 12 to 19 digits that pass the Luhn check (ISO/IEC 7812-1, annex B). It is replaced at decode by a
keyed HMAC-SHA256 token, so that the same card keeps the same token and nobody without the key can go back. The last four
digits stay for display, as PCI DSS 3.4 allows.
"""

import hashlib
import hmac
import re

from core.errors import InvalidEvent

# groups of digits with one space or dash between them; at least twelve digits in all
_DIGIT_RUN = re.compile(r"(?<![0-9])[0-9](?:[ \-]?[0-9]){11,}")
_DIGIT_RUN_BYTES = re.compile(rb"(?<![0-9])[0-9](?:[ \-]?[0-9]){11,}")
_TWELVE_DIGITS = re.compile(r"[0-9](?:[ \-]?[0-9]){11}")
_LONGEST = 64  # more characters than a card number takes with its separators
_GROUP = re.compile(r"[0-9]+")
_DOUBLED = str.maketrans("0123456789", "0246813579")


def luhn(digits: str) -> bool:
    """Whether a string of digits passes the Luhn check."""
    total = sum(map(int, digits[-1::-2])) + sum(map(int, digits[-2::-2].translate(_DOUBLED)))
    return total % 10 == 0


def is_pan(text: str) -> bool:
    """Whether a text is a card number: 12 to 19 ASCII digits that pass Luhn, spaces and dashes between them allowed."""
    if len(text) < 12 or not text[0].isdigit():
        return False
    digits = text.replace(" ", "").replace("-", "")
    return 12 <= len(digits) <= 19 and digits.isascii() and digits.isdigit() and luhn(digits)


def may_hold_pan(text: str) -> bool:
    """Whether a text has enough digits in a row to be looked at for card numbers."""
    return _TWELVE_DIGITS.search(text) is not None


def pan_token(pan: str, key: bytes) -> str:
    """
    The token of a card number: ``pan_`` + 24 hexadecimal digits of the HMAC + ``_`` + the last four digits.

    Raises:
        InvalidEvent: if no key is set.
    """
    if not key:
        raise InvalidEvent(
            "card_id is a raw card number and no key is set to tokenise it: set WHYFLAG_PAN_KEY to a secret of at least "
            "16 characters, the same in every process"
        )
    digits = pan.replace(" ", "").replace("-", "")
    return f"pan_{hmac.new(key, digits.encode(), hashlib.sha256).hexdigest()[:24]}_{digits[-4:]}"


def _mask(run: str) -> str:
    """
    A run of digit groups with its card numbers masked.

    A card number may stand between other numbers ("order 1 4111 1111 1111 1111 12/25"), so at every group each row of neighbours
    that is not too long is tried, the longest first. Linear in the length of the run: whoever writes it may mean harm.
    """
    groups = list(_GROUP.finditer(run))
    masked, at, first = [], 0, 0
    while first < len(groups):
        if digits := _card_number(groups, first):
            masked += [run[at : groups[first].start()], f"[card ending {digits[-4:]}]"]
            while digits:
                digits = digits.removeprefix(groups[first].group())
                at, first = groups[first].end(), first + 1
        else:
            first += 1
    return "".join(masked) + run[at:]


def _card_number(groups: list[re.Match[str]], first: int) -> str:
    """The longest card number that begins with a group; empty if there is none."""
    digits, found = "", ""
    for group in groups[first : first + 19]:
        digits += group.group()
        if len(digits) > 19:
            break
        if len(digits) >= 12 and luhn(digits):
            found = digits
    return found


def redact(text: str) -> str:
    """A text with every card number in it masked but for its last four digits."""
    if len(text) < 12:
        return text
    return _DIGIT_RUN.sub(lambda run: _mask(run.group()), text)


def redact_start(text: str, kept: int) -> str:
    """The first ``kept`` characters of a text as ``redact`` shows them, however long and whatever it is."""
    return redact(text[: kept + _LONGEST])[:kept]


def redact_bytes(raw: bytes) -> bytes:
    """Raw bytes with every card number in them masked, for dead letters and logs."""
    return _DIGIT_RUN_BYTES.sub(lambda run: _mask(run.group().decode()).encode(), raw)


def redact_bytes_start(raw: bytes, kept: int) -> bytes:
    """The first ``kept`` bytes, with card numbers masked."""
    return redact_bytes(raw[: kept + _LONGEST])[:kept]
