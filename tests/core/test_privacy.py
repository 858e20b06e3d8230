"""Masking of card numbers, e-mail addresses and social security numbers in every form, against a plain Python oracle."""

import re
import unicodedata
from types import SimpleNamespace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.errors import InvalidEvent, MissingKeyError
from core.messages import decode_dead_letter
from core.privacy.masking import FIELD_KINDS, WITHOUT_KEY, Privacy, mask_bytes, without_controls
from core.privacy.sensitive import _TABLE_SIZE, _class_of, flag_rows, holds_sensitive, mask
from streams.stages.stage import dead_letter
from tests.strategies import examples

VISA, AMEX = "4111111111111111", "378282246310005"
KEY = Privacy(b"a secret of some length")


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("pay 4111111111111111 12/25", "pay [card ending 1111] 12/25"),
        ("4111 1111 1111 1111 123", "[card ending 1111] 123"),
        ("order 1 4111111111111111", "order 1 [card ending 1111]"),
        ("1 4111111111111111 2 378282246310005 3", "1 [card ending 1111] 2 [card ending 0005] 3"),
        ("from 130.125.165.212", "from 130.125.165.212"),
        ("4111 1111 1111 1112", "4111 1111 1111 1112"),
        ("%B4111111111111111^DOE/JANE^2512101", "%B[card ending 1111]^DOE/JANE^2512101"),
        (";4111111111111111=25121010000", ";[card ending 1111]=25121010000"),
        ("000000000000", "000000000000"),
        ("mail jane.doe+x@mail.example.com now", "mail [e-mail address] now"),
        ("card4111111111111111@example.com", "[e-mail address]"),
        ("4111 1111 1111 1111, jane@example.com", "[card ending 1111], [e-mail address]"),
        ("her number is 078-05-1120.", "her number is [social security number]."),
        ("on 2024-05-11 at 12:30", "on 2024-05-11 at 12:30"),
        ("a @ b, x@y, 5@3", "a @ b, x@y, 5@3"),
    ],
)  # fmt: skip
def test_sensitive_values_are_masked_within_other_text(text, masked):
    assert mask(text) == masked
    assert mask_bytes(text.encode(), 4096) == masked.encode()
    assert mask(masked) == masked


SEPARATORS = [
    " ",
    "-",
    ".",
    "_",
    "/",
    "\u00a0",
    "\u200b",
    "\u2009",
    "\u2011",
    "\u3000",
    ":",
    ", ",
    " - ",
    "\ufeff",
    "\n",
    "=",
    "*",
    "\u200d\u2060",
]


@pytest.mark.parametrize("separator", SEPARATORS)
def test_a_card_number_is_found_with_any_separator_between_its_digits(separator):
    for groups in ("4111 1111 1111 1111", "3782 822463 10005", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"):
        text = f"card {groups.replace(' ', separator)}, thanks"
        assert re.fullmatch(r"card \[card ending (1111|0005)\], thanks", mask(text)), text


@pytest.mark.parametrize("zero", ["\uff10", "\u0660", "\u06f0", "\u0966", "\U0001d7ce", "\U0001fbf0"])
def test_a_card_number_is_found_in_the_digits_of_every_script(zero):
    written = "".join(chr(ord(zero) + int(digit)) for digit in VISA)
    assert mask(f"card {written}!") == "card [card ending 1111]!"


def test_a_character_is_classified_by_its_nfkc_form():
    for code in range(_TABLE_SIZE):
        plain = unicodedata.normalize("NFKC", chr(code))
        if len(plain) == 1 and plain in "0123456789":
            assert _class_of(chr(code)) == int(plain)


def luhn(digits: list[int]) -> bool:
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = digit if place % 2 == 0 else sum(divmod(2 * digit, 10))
        total += value
    return total % 10 == 0


def holds_a_card_number(text: str) -> bool:
    """Return whether a text holds a card number: whole groups of digits with at most four visible separators, and Luhn holds."""
    found = [(match.start(), match.end()) for match in re.finditer(r"[0-9]+", text)]
    for first in range(len(found)):
        digits: list[int] = []
        for number in range(first, len(found)):
            begin, end = found[number]
            between = text[found[number - 1][1] : begin] if number > first else ""
            if any(one.isalnum() for one in between) or len(between) > 4:
                break
            digits += [int(one) for one in text[begin:end]]
            if len(digits) > 19:
                break
            parts = text[found[first][0] : end]
            address = re.fullmatch(r"(\d{3})\.(\d{3})\.(\d{3})\.(\d{3})", parts)
            if address and all(int(part) < 256 for part in address.groups()):
                continue
            if len(digits) >= 12 and any(digits) and luhn(digits):
                return True
    return False


@given(st.text("0123456789 -.ax", max_size=60))
@examples(1500)
@example("4111 1111 1111 1111")
@example("1.4111111111111111")
@example("123.123.123.123 0")
@example("123-41-1111 1111 1111 11")
@example("000-00-0000")
def test_a_card_number_is_masked_exactly_if_the_definition_finds_one(text):
    assert holds_sensitive(text) or not holds_a_card_number(text)
    assert ("[card ending " in mask(text) or "[masked]" in mask(text)) == holds_a_card_number(text)


@given(st.text(max_size=80), st.sampled_from([VISA, AMEX, "5500005555555559"]), st.text(max_size=80))
@examples(500)
def test_no_card_number_survives_between_other_text(before, pan, after):
    masked = mask(f"{before} a {pan} b {after}")
    assert pan not in masked
    assert mask(masked) == masked


@given(st.lists(st.text("0123456789-@.abx ", max_size=40), max_size=20))
@settings(deadline=None)
def test_flagging_rows_of_bytes_agrees_with_checking_their_texts(texts):
    import numpy as np

    data = np.frombuffer("".join(texts).encode() or b"x", np.uint8)
    offsets = np.cumsum([0, *map(len, texts)]).astype(np.int64)
    assert flag_rows(data, offsets).tolist() == [holds_sensitive(text) for text in texts]


@given(st.binary(max_size=300), st.integers(0, 200))
@settings(deadline=None)
def test_masking_any_bytes_keeps_within_the_limit(raw, kept):
    assert len(mask_bytes(raw, kept)) <= kept


@given(st.text('\\\\u0041tnq"/ \u00e9\uff11', max_size=60).map(str.encode))
@example(b"\\\\0")
@example(b"\\\\\\")
@examples(500)
def test_any_backslashes_can_be_resolved(raw):
    resolved = mask_bytes(raw, 4096)
    assert not holds_sensitive(resolved.decode())
    assert resolved == raw or b"\\" in raw or b"[" in resolved, "without an escape or a number, nothing changes"


def test_truncation_leaves_no_part_of_a_card_number():
    for at in range(4096 - 20, 4096 + 2):
        kept = mask_bytes(b"x" * at + b" 4111 1111 1111 1111 and more", 4096)
        assert b"4111" not in kept
        assert len(kept) <= 4096


def test_json_escapes_do_not_hide_a_card_number():
    raw = "".join(f"\\u00{ord(digit):02x}" for digit in VISA).encode()
    assert mask_bytes(b'{"memo":"' + raw + b'"', 4096) == b'{"memo":"[card ending 1111]"'


@pytest.mark.parametrize("separator", ["\\t", "\\n", "\\u00a0", "\\u2009", "\\u200b", "\\u2013", "\\u202f", "\\/", '","'])
@pytest.mark.parametrize("digits", ["4111 1111 1111 1111", "\\uff14\\uff11\\uff11\\uff11 \\uff11\\uff11\\uff11\\uff11 1111 1111"])
@pytest.mark.parametrize("end", ['"}', ""])
def test_no_escape_between_digits_hides_a_card_number_in_a_dead_letter(separator, digits, end):
    record = SimpleNamespace(
        topic="t", partition=0, offset=0, key=b"", value=f'{{"memo":"{digits.replace(" ", separator)}{end}'.encode()
    )
    raw = decode_dead_letter(dead_letter("s", record, InvalidEvent("x")).values[0]).raw
    assert b"1111 1111" not in raw
    assert b"[card ending 1111]" in raw, raw


@given(st.integers(0, 10**10).map(str), st.sampled_from([VISA, AMEX, "5500005555555559"]))
@examples(1000)
@example("20240006", VISA)
def test_a_number_before_a_card_number_leaves_no_part_of_it(before, pan):
    groups = [pan[at : at + 4] for at in range(0, len(pan), 4)]
    for text in (f"{before} {' '.join(groups)}", f"{before} {before} {'-'.join(groups)} {before}"):
        assert groups[2] not in re.sub(r"card ending \d{4}", "", mask(text)).replace(before, "")


def test_control_characters_and_lone_surrogates_are_removed():
    assert without_controls("a\x00b\x07c\ud800d\te\nf") == "abcd\te\nf"
    assert KEY.private("memo", "a\x00b") == "ab"
    assert KEY.private("ip", "1.2.3.4\x00") == "1.2.3.4"


IDENTIFIERS = [field for field, kind in FIELD_KINDS.items() if kind.name in ("CARD", "IDENTIFIER", "ADDRESS")]
FORMS = [
    VISA, "4111-1111-1111-1111", "4111.1111.1111.1111", f"C{VISA}", f"x-{VISA}-2", f";{VISA}=25121010000", "4111:1111:1111:1111::",
    "jane@example.com", "078-05-1120",
]  # fmt: skip


@pytest.mark.parametrize("field", IDENTIFIERS)
@pytest.mark.parametrize("form", FORMS)
def test_an_identifier_that_holds_something_sensitive_becomes_a_token(field, form):
    token = KEY.private(field, form)
    assert re.fullmatch(
        r"pan_[a-p]{24}_\d{4}" if field == "card_id" and sum(map(str.isdigit, form)) >= 12 else r"id_[a-p]{24}", token
    )
    assert KEY.private(field, token) == token
    assert KEY.private(field, form) == token
    assert Privacy(b"another key altogether").private(field, form) != token
    with pytest.raises(MissingKeyError, match="WHYFLAG_PAN_KEY"):
        WITHOUT_KEY.private(field, form)


def test_a_card_gets_the_same_token_however_its_number_is_written():
    assert (
        len(
            {KEY.private("card_id", form) for form in (VISA, "4111 1111 1111 1111", "4111-1111-1111-1111", "4111.1111.1111.1111")}
        )
        == 1
    )
    assert len({KEY.private("transaction_id", form) for form in (VISA, "4111-1111-1111-1111", f"{VISA}-1", f"{VISA}-2")}) == 4


def test_an_ip_address_is_not_taken_for_a_card_number():
    assert KEY.private("ip", "130.125.165.212") == "130.125.165.212"
    assert KEY.private("ip", "2001:db8::1") == "2001:db8::1"


def test_different_keys_have_different_fingerprints():
    assert KEY.fingerprint == Privacy(b"a secret of some length").fingerprint != Privacy(b"another key altogether").fingerprint
    assert WITHOUT_KEY.fingerprint == ""
    assert len(KEY.fingerprint) == 16
