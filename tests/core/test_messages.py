import json

import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import messages as m
from core.decoding import decode_label, decode_transaction, decode_transactions
from core.errors import InputError, InvalidEvent
from core.privacy.masking import Privacy
from core.schemas import breaking_changes, export, file_name, schema_of
from tests.conftest import ROOT
from tests.strategies import every_message, examples, transactions

VISA = "4111111111111111"
KEY = Privacy(b"a secret of some length")


@given(every_message)
@examples(300)
def test_every_message_round_trips_and_fits_its_schema(message):
    raw = m.encode(message)
    assert msgspec.json.decode(raw, type=type(message)) == message
    jsonschema.validate(json.loads(raw), schema_of(type(message)))


@pytest.mark.parametrize("message", m.MESSAGES)
def test_committed_schemas_match_the_code(message):
    committed = json.loads((ROOT / "docs" / "schemas" / file_name(message)).read_text())
    assert breaking_changes(committed, schema_of(message)) == []
    assert committed == schema_of(message), "run `whyflag schemas`"


def _changed(change):
    schema = json.loads(json.dumps(schema_of(m.Transaction)))
    change(schema["$defs"]["Transaction"])
    return schema


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (lambda s: s["properties"].pop("memo"), "Transaction.memo: removed"),
        (lambda s: s["required"].append("mcc"), "Transaction.mcc: became required"),
        (lambda s: s["required"].remove("amount"), "Transaction.amount: became optional"),
        (lambda s: s["properties"]["amount"].update(type="string"), "Transaction.amount: changed"),
    ],
)
def test_a_breaking_change_is_found(change, found):
    assert breaking_changes(schema_of(m.Transaction), _changed(change)) == [found]


def test_a_new_optional_field_breaks_nothing():
    assert breaking_changes(schema_of(m.Transaction), _changed(lambda s: s["properties"].update(new={"type": "string"}))) == []


def test_export_refuses_to_break_a_published_schema(tmp_path):
    export(tmp_path)
    path = tmp_path / file_name(m.Label)
    schema = json.loads(path.read_text())
    schema["$defs"]["Label"]["properties"]["colour"] = {"type": "string"}
    path.write_text(json.dumps(schema))
    with pytest.raises(InputError, match=r"Label.colour: removed"):
        export(tmp_path)


@given(st.binary(max_size=200))
@examples(500)
def test_arbitrary_bytes_are_an_invalid_event_or_a_transaction(raw):
    try:
        assert isinstance(decode_transaction(raw, KEY), m.Transaction)
    except InvalidEvent as error:
        assert str(error)


@given(transactions, st.data())
@examples(300)
def test_a_transaction_with_one_invalid_field_is_an_invalid_event(transaction, data):
    values = json.loads(m.encode(transaction))
    wrong = data.draw(
        st.sampled_from(
            [
                ("amount", -1), ("amount", 1.5), ("amount", "12"), ("amount", 10**19), ("amount", None), ("event_time", 0),
                ("event_time", "2020-01-01"), ("currency", "eur"), ("currency", ""), ("card_id", ""), ("card_id", 5),
                ("transaction_id", "x" * 129), ("transaction_id", "a\x00b"), ("lat", 91), ("mcc", "12a4"), ("v", 2),
                ("channel", "phone"), ("memo", "x" * 513), ("merchant_id", ["m"]), ("country", "FRA"),
            ]
        )
    )  # fmt: skip
    values[wrong[0]] = wrong[1]
    with pytest.raises(InvalidEvent):
        decode_transaction(json.dumps(values).encode(), KEY)


def _alone(raw):
    try:
        return decode_transaction(raw, KEY)
    except InvalidEvent as error:
        return str(error)


_odd = st.sampled_from(
    [None, b"", b"null"]
    + [
        json.dumps({"transaction_id": "t", "event_time": m.EARLIEST, "card_id": "c", "merchant_id": "m", "amount": 1, "currency": "EUR"} | change).encode()
        for change in (
            {"card_id": VISA}, {"card_id": "4111 1111 1111 1111"}, {"card_id": "a  b"}, {"merchant_id": "caf\u00e9"}, {"merchant_id": "a b"},
            {"transaction_id": "x\n"}, {"memo": f"card {VISA}"}, {"device_id": VISA}, {"device_id": "a\tb"}, {"mcc": "54a1"},
            {"country": "fr"}, {"currency": "EURO"},
        )
    ]
)  # fmt: skip


@given(st.lists(transactions.map(m.encode) | _odd, max_size=12))
@examples(300)
def test_decoding_a_batch_equals_decoding_each_message_alone(raws):
    assert [str(d) if isinstance(d, InvalidEvent) else d for d in decode_transactions(raws, KEY)] == [_alone(raw) for raw in raws]


@pytest.mark.parametrize(
    "raw", [None, b"", b"null", b"[]", b"{", b"\xff\xfe", b"[" * 5000, b'{"a":' * 3000, b"NaN", b"\x00" * 10]
)
def test_a_record_that_is_not_a_transaction_is_an_invalid_event(raw):
    with pytest.raises(InvalidEvent):
        decode_transaction(raw, KEY)


def _transaction(**changes):
    values = {
        "transaction_id": "t1", "event_time": 1_700_000_000_000, "card_id": "c1", "merchant_id": "m1", "amount": 1, "currency": "EUR",
    }  # fmt: skip
    return json.dumps(values | changes).encode()


@pytest.mark.parametrize("pan", [VISA, "4111 1111 1111 1111", "4111-1111-1111-1111", "378282246310005"])
def test_a_card_number_becomes_a_token_that_keeps_its_last_four(pan):
    card_id = decode_transaction(_transaction(card_id=pan), KEY).card_id
    assert card_id.startswith("pan_")
    assert card_id.endswith(pan[-4:])
    assert pan not in card_id
    assert decode_transaction(_transaction(card_id=pan), KEY).card_id == card_id
    assert decode_transaction(_transaction(card_id=pan), Privacy(b"another key altogether")).card_id != card_id


def test_spaces_in_a_card_number_do_not_make_another_card():
    spaced = decode_transaction(_transaction(card_id="4111 1111 1111 1111"), KEY)
    assert spaced == decode_transaction(_transaction(card_id=VISA), KEY)


def test_a_card_number_without_a_key_is_refused_and_the_error_names_the_setting():
    with pytest.raises(InvalidEvent, match="WHYFLAG_PAN_KEY"):
        decode_transaction(_transaction(card_id=VISA), Privacy())


@pytest.mark.parametrize("not_a_pan", ["4111111111111112", "596", "12345678901", "41111111111111111111", "card-4111"])
def test_a_value_that_is_not_a_card_number_is_kept(not_a_pan):
    assert decode_transaction(_transaction(card_id=not_a_pan), KEY).card_id == not_a_pan


def test_card_numbers_in_free_text_are_masked():
    decoded = decode_transaction(_transaction(memo=f"paid with {VISA} ok", merchant_name="4111 1111 1111 1111"), KEY)
    assert VISA not in str(decoded)
    assert decoded.memo == "paid with [card ending 1111] ok"
    assert decoded.merchant_name == "[card ending 1111]"


@pytest.mark.parametrize("field", ["currency", "mcc", "country", "card_id", "merchant_id", "transaction_id"])
def test_an_identifier_with_a_final_newline_is_invalid(field):
    value = {"currency": "EUR", "mcc": "5411", "country": "FR"}.get(field, "c")
    decode_transaction(_transaction(**{field: value}), KEY)
    with pytest.raises(InvalidEvent):
        decode_transaction(_transaction(**{field: value + "\n"}), KEY)


def test_labels_carry_the_same_token_as_transactions():
    label = {
        "transaction_id": "t1", "card_id": VISA, "merchant_id": "m1", "event_time": 1_700_000_000_000,
        "label_time": 1_700_000_000_001, "fraud": True, "source": "chargeback",
    }  # fmt: skip
    token = decode_transaction(_transaction(card_id=VISA), KEY).card_id
    assert decode_label(json.dumps(label).encode(), KEY).card_id == token


@given(transactions, transactions, st.sampled_from(m.IDENTITY_FIELDS))
def test_an_alert_id_depends_on_all_identity_fields_and_no_others(one, other, field):
    assert m.alert_id(one) == m.alert_id(msgspec.structs.replace(one, memo="other", merchant_name="other", ip="1.2.3.4"))
    changed = msgspec.structs.replace(one, **{field: getattr(other, field)})
    assert (m.alert_id(changed) == m.alert_id(one)) == (getattr(one, field) == getattr(other, field))


def test_the_reason_why_a_record_cannot_be_decoded_says_what_is_wrong():
    privacy = Privacy(b"0123456789abcdef")
    for decode in (decode_transaction, decode_label):
        with pytest.raises(InvalidEvent, match=r"^the record has no value$"):
            decode(None, privacy)
        with pytest.raises(InvalidEvent, match="truncated"):
            decode(b'{"card_id": ', privacy)
        with pytest.raises(InvalidEvent, match="missing required field"):
            decode(b"{}", privacy)
    for number, (field, value, form) in enumerate(
        (("card_id", "a  b", "printable ASCII"), ("currency", "eur", "three capital letters"))
    ):
        raw = {
            "transaction_id": "t",
            "event_time": m.EARLIEST,
            "card_id": "c",
            "merchant_id": "m",
            "amount": number,
            "currency": "EUR",
        }
        with pytest.raises(InvalidEvent, match=f"^{field} must be .*{form}"):
            decode_transaction(json.dumps(raw | {field: value}).encode(), privacy)
