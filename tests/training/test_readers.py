import gzip
import json
import subprocess
import sys

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.modelling.simulate import write_table
from core.clock import FixedClock
from core.decoding import decode_label, decode_transaction
from core.errors import InputError, MappingError, MissingKeyError
from core.event_time import AHEAD_MS
from core.messages import LATEST, encode
from core.privacy.masking import Privacy
from models.features.columns import table_columns
from tests.strategies import examples, transactions
from training.data.mapping import PrivateColumns, included_mappings, load_mapping
from training.data.readers import TransactionFile, read_labels
from training.replay import transactions_of

KEY = Privacy(b"sixteen bytes or more")
SPARKOV = "trans_date_trans_time,cc_num,merchant,category,amt,merch_lat,merch_long,trans_num,is_fraud\n"
GOOD = '2019-01-01 00:00:18,4111111111111111,"fraud_Rippin, Kub",misc_net,4.97,36.01,-82.04,t{},0\n'


def _sparkov(tmp_path, body, name="t.csv"):
    path = tmp_path / name
    path.write_bytes((SPARKOV + body).encode() if isinstance(body, str) else SPARKOV.encode() + body)
    return TransactionFile(path, load_mapping("sparkov"), KEY, tmp_path / "rejects.jsonl")


def _rejects(tmp_path):
    return [json.loads(line) for line in (tmp_path / "rejects.jsonl").read_text().splitlines()]


def test_the_included_mappings_are_those_that_are_documented():
    assert included_mappings() == ["handbook", "sparkov", "whyflag"]


def test_sparkov_columns_become_transactions(tmp_path):
    (transaction,) = transactions_of(_sparkov(tmp_path, GOOD.format(1)))
    assert msgspec.to_builtins(transaction) == {
        "transaction_id": "t1", "event_time": 1546300818000, "card_id": transaction.card_id, "merchant_id": "fraud_Rippin, Kub",
        "merchant_name": "fraud_Rippin, Kub", "amount": 497, "currency": "USD", "mcc": "5969", "country": "US", "channel": "online",
        "lat": 36.01, "lon": -82.04,
    }  # fmt: skip
    assert transaction.card_id.startswith("pan_")


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("bad,4111111111111111,m,misc_net,4.97,36.01,-82.04,t2,0", "event_time"),
        ("1,2", "2 columns instead of 9"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,-3,36.01,-82.04,t2,0", "negative"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,abc,36.01,-82.04,t2,0", "amount"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,1e30,36.01,-82.04,t2,0", "amount"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,NaN,36.01,-82.04,t2,0", "amount"),
        ("2019-01-01 00:00:18,,m,misc_net,3,36.01,-82.04,t2,0", "card_id is missing"),
        ("2019-01-01 00:00:18,4111111111111111,m,no_such,3,36.01,-82.04,t2,0", "mcc"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,3,xx,-82.04,t2,0", "lat"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,3,95,-82.04,t2,0", "lat"),
        ("1066-01-01 00:00:18,4111111111111111,m,misc_net,3,36,-82.04,t2,0", "event_time"),
        ("2019-01-01 00:00:18,4111111111111111,m,misc_net,3,36,-82.04,t2,perhaps", "label"),
        (f"2019-01-01 00:00:18,4111111111111111,{'m' * 129},misc_net,3,36,-82.04,t2,0", "merchant_id"),
    ],
)
def test_a_bad_row_is_rejected_with_its_line_and_reason_and_the_rest_is_read(tmp_path, row, reason):
    source = _sparkov(tmp_path, GOOD.format(1) + "\n" + row + "\n" + GOOD.format(3))
    assert [t.transaction_id for t in transactions_of(source)] == ["t1", "t3"]
    assert (source.read, source.rejected) == (3, 1)
    (reject,) = _rejects(tmp_path)
    assert reject["line"] == 4  # after the header, a good row and a blank line
    assert reason in reject["reason"]
    assert "4111111111111111" not in (tmp_path / "rejects.jsonl").read_text()


def test_bytes_that_are_not_text_reject_their_row_only(tmp_path):
    source = _sparkov(tmp_path, GOOD.format(1).encode() + b"2019-01-01 00:00:18,41,m\xff,misc_net,3,36,-82.04,t2,0\n")
    assert [t.transaction_id for t in transactions_of(source)] == ["t1"]
    assert source.rejected == 1


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("{", "not a JSON object"),
        ("[1]", "not a JSON object"),
        ('{"transaction_id": {"a": 1}}', "transaction_id"),
        ("\x00", "JSON"),
    ],
)
def test_a_bad_json_line_is_rejected(tmp_path, world, line, reason):
    good = next(transactions_of(TransactionFile(world / "transactions.parquet", load_mapping("whyflag"))))
    path = tmp_path / "t.jsonl"
    path.write_bytes(encode(good) + b"\n" + line.encode() + b"\n" + encode(good) + b"\n")
    source = TransactionFile(path, load_mapping("whyflag"), rejects=tmp_path / "rejects.jsonl")
    assert list(transactions_of(source)) == [good, good]
    (reject,) = _rejects(tmp_path)
    assert (reject["line"], reason in reject["reason"]) == (2, True), reject


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
@pytest.mark.parametrize("rows", [1, 7, 1000])
def test_all_formats_and_chunk_sizes_give_the_same_transactions(tmp_path, world, suffix, rows):
    table = pq.read_table(world / "transactions.parquet").slice(0, 200)
    path = tmp_path / f"t{suffix}"
    write_table(table, path)
    source = TransactionFile(path, load_mapping("whyflag"))
    chunks = list(source.chunks(rows))
    assert max(len(chunk.table) for chunk in chunks) <= rows
    assert [row["transaction_id"] for chunk in chunks for row in chunk.table.to_pylist()] == table["transaction_id"].to_pylist()
    expected = pa.concat_tables(
        chunk.table for chunk in TransactionFile(world / "transactions.parquet", load_mapping("whyflag")).chunks()
    )
    got, wanted = (
        table_columns(t, "EUR", {}, 500, 5) for t in (pa.concat_tables(c.table for c in chunks), expected.slice(0, 200))
    )
    for a, b in zip(got, wanted, strict=True):
        np.testing.assert_array_equal(a, b)


@given(st.lists(transactions, min_size=1, max_size=5))
@examples(60)
def test_the_reader_accepts_and_decodes_what_the_stream_accepts(tmp_path_factory, many):
    path = tmp_path_factory.mktemp("wire") / "t.jsonl"
    path.write_bytes(b"".join(encode(t) + b"\n" for t in many))
    source = TransactionFile(path, load_mapping("whyflag"), KEY, clock=FixedClock(LATEST))
    read = list(transactions_of(source))
    assert source.rejected == 0, source.first_reject
    wire = [decode_transaction(encode(t), KEY) for t in many]

    assert read == wire


def test_the_error_for_a_wrong_mapping_names_the_missing_and_the_available_columns(world):
    with pytest.raises(MappingError, match=r"'CUSTOMER_ID'.*it has 'transaction_id', 'event_time'"):
        list(TransactionFile(world / "transactions.parquet", load_mapping("handbook")).chunks())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[columns", "mapping"),
        ('amount = "gold"\ntime = "ms"\n[columns]', "amount"),
        ('amount = "minor"\ntime = "ms"\n[columns]\ncolour = "x"', "no such field colour"),
        ('amount = "minor"\ntime = "ms"\n[columns]\namount = "x"', "required field transaction_id"),
        ('amount = "minor"\ntime = "ms"\ntypo = 1\n[columns]', "typo"),
    ],
)
def test_an_invalid_mapping_file_raises_a_mapping_error(tmp_path, text, reason):
    path = tmp_path / "m.toml"
    path.write_text(text)
    with pytest.raises(MappingError, match=reason):
        load_mapping(str(path))


def test_an_unknown_mapping_lists_the_included_ones():
    with pytest.raises(MappingError, match="handbook, sparkov, whyflag"):
        load_mapping("kaggle")


def test_unreadable_files_raise_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no file"):
        TransactionFile(tmp_path / "none.csv", load_mapping("whyflag"))
    (tmp_path / "t.xlsx").touch()
    with pytest.raises(InputError, match=r"\.csv, \.parquet or \.jsonl"):
        TransactionFile(tmp_path / "t.xlsx", load_mapping("whyflag"))
    (tmp_path / "t.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read"):
        list(TransactionFile(tmp_path / "t.parquet", load_mapping("whyflag")).chunks())


def test_a_file_without_a_usable_row_is_an_error(tmp_path):
    with pytest.raises(InputError, match=r"none of its 2 rows can be used; the first: t\.csv, line 2"):
        list(_sparkov(tmp_path, "x,,,,,,,,\ny,,,,,,,,\n").chunks())


def test_card_numbers_without_a_key_raise_a_missing_key_error(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(SPARKOV + GOOD.format(1))
    with pytest.raises(MissingKeyError, match="WHYFLAG_PAN_KEY"):
        list(TransactionFile(path, load_mapping("sparkov")).chunks())


def test_a_missing_key_raises_an_error_at_the_first_card_number(tmp_path):
    """The error comes before the whole file has been read."""
    path = tmp_path / "t.csv"
    rows = [GOOD.format(i).replace("4111111111111111", "card" if i else "4111111111111111") for i in range(20_000)]
    path.write_text(SPARKOV + "".join(rows))
    mapping = msgspec.structs.replace(load_mapping("sparkov"), privacy=PrivateColumns())
    source = TransactionFile(path, mapping)
    with pytest.raises(MissingKeyError):
        next(source.chunks(100))
    assert source.read == 100


def test_columns_are_as_private_as_the_mapping_declares(tmp_path):
    """Card numbers that fail Luhn become tokens too, personal columns are never read, and a free-text identifier is masked."""
    path, mapping = tmp_path / "t.jsonl", tmp_path / "m.toml"
    mapping.write_text(
        'amount = "minor"\ntime = "ms"\n[columns]\ntransaction_id = "id"\nevent_time = "at"\ncard_id = "card"\nmerchant_id = "shop"\n'
        'amount = "total"\n[constants]\ncurrency = "EUR"\n[privacy]\ncard_number = ["card"]\npersonal = ["name"]\nfree_text = ["shop"]\n'
    )
    row = {
        "id": "t1",
        "at": 1_750_000_000_000,
        "card": "4111111111111112",
        "shop": "shop 4111111111111111",
        "total": 5,
        "name": "Jane Canary",
    }
    broken = row | {"id": "t2", "total": -1}
    path.write_text("".join(json.dumps(one) + "\n" for one in (row, broken)) + '{"name": "Jane Canary"\n')
    source = TransactionFile(path, load_mapping(str(mapping)), KEY, tmp_path / "rejects.jsonl")
    (read,) = transactions_of(source)
    assert read.card_id.startswith("pan_")
    assert read.card_id.endswith("_1112")
    assert read.merchant_id == "shop [card ending 1111]"
    rejects = (tmp_path / "rejects.jsonl").read_text()
    assert "Canary" not in rejects
    assert "4111" not in rejects
    assert source.rejected == 2


@pytest.mark.parametrize(
    ("privacy", "reason"),
    [
        ('personal = ["card"]', "declared personal"),
        ('card_number = ["none"]', "no field uses it"),
        ('card_number = ["total"]', "cannot be a token"),
        ('secret = ["card"]', "secret"),
    ],
)
def test_a_wrong_declaration_of_private_columns_is_refused(tmp_path, privacy, reason):
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        'amount = "minor"\ntime = "ms"\n[columns]\ntransaction_id = "id"\nevent_time = "at"\ncard_id = "card"\nmerchant_id = "shop"\n'
        f'amount = "total"\n[constants]\ncurrency = "EUR"\n[privacy]\n{privacy}\n'
    )
    with pytest.raises(MappingError, match=reason):
        load_mapping(str(mapping))


def test_a_row_from_the_future_is_rejected(tmp_path, world):
    good = next(transactions_of(TransactionFile(world / "transactions.parquet", load_mapping("whyflag"))))
    now = good.event_time
    path = tmp_path / "t.jsonl"
    times = (now, now + AHEAD_MS, now + AHEAD_MS + 1, LATEST)
    path.write_bytes(b"".join(encode(msgspec.structs.replace(good, event_time=time)) + b"\n" for time in times))
    source = TransactionFile(path, load_mapping("whyflag"), clock=FixedClock(now))
    assert [t.event_time for t in transactions_of(source)] == [now, now + AHEAD_MS]
    assert "future" in source.first_reject


def test_identifiers_with_card_numbers_stay_distinct_and_join_with_labels(tmp_path):
    """Sixteen-digit transaction ids do not collapse, and a label finds its transaction."""
    rows = [
        {"transaction_id": f"{4111111111111111 + i}", "event_time": 1_750_000_000_000 + i, "card_id": "4111111111111111",
         "merchant_id": f"{5500005555555559 + i}", "amount": 1, "currency": "EUR", "device_id": f"{30569309025904 + i}"}
        for i in range(300)
    ]  # fmt: skip
    path = tmp_path / "t.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    read = list(transactions_of(TransactionFile(path, load_mapping("whyflag"), KEY)))
    for field in ("transaction_id", "merchant_id", "device_id"):
        assert len({getattr(t, field) for t in read}) == len(rows)
    assert len({t.card_id for t in read}) == 1
    assert read == [decode_transaction(json.dumps(row).encode(), KEY) for row in rows]
    label = {"source": "chargeback", "fraud": True, "label_time": 1_750_000_100_000}
    label |= {name: rows[7][name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
    (tmp_path / "l.jsonl").write_text(json.dumps(label) + "\n")
    (known,) = read_labels(tmp_path / "l.jsonl", KEY)
    assert [t for t in read if t.transaction_id == known.transaction_id] == [read[7]]
    assert known == decode_label(json.dumps(label).encode(), KEY)


def test_amounts_follow_the_currency(tmp_path):
    mapping = tmp_path / "m.toml"
    mapping.write_text(
        'amount = "major"\ntime = "s"\n[columns]\ntransaction_id = "id"\nevent_time = "at"\ncard_id = "c"\nmerchant_id = "m"\n'
        'amount = "a"\ncurrency = "cur"\n'
    )
    path = tmp_path / "t.csv"
    path.write_text("id,at,c,m,a,cur\n1,1700000000,c,m,12.34,EUR\n2,1700000000,c,m,1234,JPY\n3,1700000000,c,m,1.234,KWD\n")
    assert [t.amount for t in transactions_of(TransactionFile(path, load_mapping(str(mapping))))] == [1234, 1234, 1234]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_labels_are_read_from_every_format(tmp_path, world, suffix):
    table = pq.read_table(world / "labels.parquet")
    write_table(table, tmp_path / f"l{suffix}")
    labels = read_labels(tmp_path / f"l{suffix}")
    assert labels == read_labels(world / "labels.parquet")
    assert len(labels) == len(table)


def test_the_error_for_an_invalid_label_names_its_row(tmp_path, world):
    good = encode(next(iter(read_labels(world / "labels.parquet")))).decode()
    (tmp_path / "l.jsonl").write_text(good + "\n" + good.replace("true", '"perhaps"') + "\n")
    with pytest.raises(InputError, match=r"line 2: .*fraud"):
        read_labels(tmp_path / "l.jsonl")
    (tmp_path / "l.jsonl").write_text('{"transaction_id": "t"}\n')
    with pytest.raises(InputError, match="has no column 'card_id'"):
        read_labels(tmp_path / "l.jsonl")


_READ = """
import resource, sys
from pathlib import Path
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from core.privacy.masking import Privacy
n = sum(len(c.table) for c in TransactionFile(Path(sys.argv[1]), load_mapping("whyflag")).chunks())
print(n, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_a_large_file_is_streamed(tmp_path, world):
    """Reading twenty times as much takes about the same memory."""
    small = tmp_path / "small.csv"
    write_table(pq.read_table(world / "transactions.parquet"), small)
    large = tmp_path / "large.csv"
    header, rows = small.read_bytes().split(b"\n", 1)
    with large.open("wb") as file:
        file.write(header + b"\n")
        for _ in range(20):
            file.write(rows)
    figures = []
    for path in (small, large):
        done = subprocess.run([sys.executable, "-c", _READ, str(path)], capture_output=True, text=True, check=True)
        figures.append([int(part) for part in done.stdout.split()])
    (n_small, peak_small), (n_large, peak_large) = figures
    assert n_large == 20 * n_small
    assert large.stat().st_size > 60 << 20
    assert (peak_large - peak_small) * 1024 < large.stat().st_size


def test_an_open_quote_does_not_swallow_rows_silently(tmp_path):
    rows = ["transaction_id,event_time,card_id,merchant_id,amount,currency,memo"]
    rows += [f"t{i},{1_750_000_000_000 + i},c,m,100,EUR,fine" for i in range(1, 5)]
    rows[2] = rows[2].replace("fine", '"not closed')
    rows[4] += '"'
    path = tmp_path / "open.csv"
    path.write_text("\n".join(rows) + "\n")
    source = TransactionFile(path, load_mapping("whyflag"), KEY)
    assert [t.transaction_id for t in transactions_of(source)] == ["t1"]
    assert source.rejected == 1
    assert "quote" in source.first_reject


def test_float_identifiers_are_converted_back_to_integers(tmp_path):
    table = pa.table(
        {
            "transaction_id": [1.0, 2.0, 3.0, 4.0], "event_time": [1_750_000_000_000] * 4,
            "card_id": [4111111111111111.0, None, float("nan"), 17.5], "merchant_id": ["m"] * 4, "amount": [100] * 4,
            "currency": ["EUR"] * 4,
        }
    )  # fmt: skip
    pq.write_table(table, tmp_path / "floats.parquet")
    source = TransactionFile(tmp_path / "floats.parquet", load_mapping("whyflag"), KEY)
    (read,) = transactions_of(source)
    assert read.transaction_id == "1"
    assert read.card_id.startswith("pan_")
    assert source.rejected == 3


def test_a_bad_value_in_a_dictionary_encoded_column_rejects_its_row_only(tmp_path, world):
    table = pq.read_table(world / "transactions.parquet").slice(0, 5)
    amounts = pa.array(["100", "many", "300", "400", "500"]).dictionary_encode()
    pq.write_table(table.set_column(table.schema.get_field_index("amount"), "amount", amounts), tmp_path / "t.parquet")
    source = TransactionFile(tmp_path / "t.parquet", load_mapping("whyflag"), KEY, tmp_path / "rejects.jsonl")
    assert [t.amount for t in transactions_of(source)] == [100, 300, 400, 500]
    (reject,) = _rejects(tmp_path)
    assert reject["reason"].startswith("amount is missing or not a number")


CARD = "4111 1111 1111 1111"


def test_neither_errors_nor_rejects_quote_a_card_number(tmp_path):
    (tmp_path / "columns.csv").write_text(f"{CARD},b\n1,2\n")
    with pytest.raises(InputError) as failed:
        list(transactions_of(TransactionFile(tmp_path / "columns.csv", load_mapping("whyflag"), KEY, tmp_path / "rejects.jsonl")))
    assert CARD not in str(failed.value)
    assert "card ending 1111" in str(failed.value)
    row = f"2019-01-01 00:00:18,{CARD.replace(' ', '')},{CARD},{CARD},{CARD},36,-82,{CARD},0\n"
    assert len(list(transactions_of(_sparkov(tmp_path, row + GOOD.format(1))))) == 1
    assert "1111 1111" not in (rejects := (tmp_path / "rejects.jsonl").read_text())
    assert "card ending 1111" in rejects


def test_the_rejects_file_must_not_be_the_input_file(world):
    path = world / "transactions.parquet"
    with pytest.raises(InputError, match="overwrite"):
        TransactionFile(path, load_mapping("whyflag"), KEY, path)


def test_a_label_column_must_have_a_delay(tmp_path):
    path = tmp_path / "leak.toml"
    path.write_text(
        'amount = "major"\ntime = "datetime"\n[columns]\ntransaction_id = "a"\nevent_time = "b"\ncard_id = "c"\nmerchant_id = "d"\n'
        'amount = "e"\n[constants]\ncurrency = "EUR"\n[label]\ncolumn = "f"\ndelay = "0d"\n'
    )
    with pytest.raises(MappingError, match="longer than zero"):
        load_mapping(str(path))
    path.write_bytes(b"amount = '\xe9'")
    with pytest.raises(MappingError):
        load_mapping(str(path))


OWN = """
amount = "major"
time = "datetime"
separator = "|"
[columns]
transaction_id = "id"
event_time = ["day", "clock"]
card_id = "card"
merchant_id = "shop"
amount = "total"
[constants]
currency = "EUR"
"""
OWN_ROWS = ["1|2024-03-01|09:30:00|c1|s1|12.50", "2|2024-03-01|10:00|c2|s1|3", "3|2024-03-02|23:59:59|c1|s2|0.99"]
OWN_HEADER = "id|day|clock|card|shop|total"
OWN_TIMES = [1_709_285_400_000, 1_709_287_200_000, 1_709_423_999_000]


def _own_mapping(tmp_path, text=OWN):
    (tmp_path / "own.toml").write_text(text)
    return load_mapping(str(tmp_path / "own.toml"))


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "^"])
def test_any_separator_gzip_and_date_and_time_in_two_columns(tmp_path, separator, compressed):
    mapping = _own_mapping(tmp_path, OWN.replace('"|"', json.dumps(separator)))
    text = "\n".join([OWN_HEADER, *OWN_ROWS, ""]).replace("|", separator).encode()
    path = tmp_path / ("t.csv.gz" if compressed else "t.csv")
    path.write_bytes(gzip.compress(text) if compressed else text)
    read = list(transactions_of(TransactionFile(path, mapping)))
    assert [(t.transaction_id, t.event_time, t.amount) for t in read] == list(zip("123", OWN_TIMES, [1250, 300, 99], strict=True))


@pytest.mark.parametrize("pattern", ["days", "days/*.csv*"])
def test_a_folder_or_a_pattern_is_read_in_the_order_of_its_names(tmp_path, pattern):
    (tmp_path / "days").mkdir()
    (tmp_path / "days" / "2.csv").write_text(f"{OWN_HEADER}\n{OWN_ROWS[2]}\nbroken\n")
    (tmp_path / "days" / "1.csv.gz").write_bytes(gzip.compress("\n".join([OWN_HEADER, *OWN_ROWS[:2]]).encode()))
    (tmp_path / "days" / "notes.md").write_text("not data")
    source = TransactionFile(tmp_path / pattern, _own_mapping(tmp_path), rejects=tmp_path / "rejects.jsonl")
    assert [t.transaction_id for t in transactions_of(source)] == ["1", "2", "3"]
    (reject,) = _rejects(tmp_path)
    assert (reject["file"].rsplit("/", 1)[1], reject["line"]) == ("2.csv", 3)
    with pytest.raises(InputError, match="matches"):
        TransactionFile(tmp_path / "days/*.parquet", _own_mapping(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="contains no"):
        TransactionFile(tmp_path / "empty", _own_mapping(tmp_path))


def test_a_format_of_date_and_time_and_a_decimal_comma(tmp_path):
    changed = OWN.replace('time = "datetime"', 'time = "datetime"\ntime_format = "%d/%m/%Y %H:%M"\ndecimal = ","')
    (tmp_path / "t.csv").write_text(f"{OWN_HEADER}\n1|01/03/2024|09:30|c1|s1|12,50\n2|2024-03-01|09:30|c1|s1|12,50\n")
    source = TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path, changed), rejects=tmp_path / "rejects.jsonl")
    assert [(t.event_time, t.amount) for t in transactions_of(source)] == [(OWN_TIMES[0], 1250)]
    assert "read as %d/%m/%Y %H:%M" in _rejects(tmp_path)[0]["reason"]


@pytest.mark.parametrize(
    ("content", "mapping", "expected"),
    [
        ("id;day;clock;card;shop;total\n", OWN, "one column, whose name contains ';'. Set separator = \";\""),
        ("id|day|clock|Card|shop|total\n", OWN, "no column 'card'; did you mean 'Card' for 'card'?"),
        ("id|day\n", OWN, "it has 'id', 'day'"),
        (None, OWN.replace("card_id", "cardid"), "no such field cardid; did you mean card_id?"),
        (
            None,
            OWN.replace('merchant_id = "shop"', 'merchant_id = ["shop", "city"]'),
            "only event_time may come from two columns",
        ),
        (None, OWN.replace('"datetime"', '"s"\ntime_format = "%d"'), "time_format needs"),
        (None, OWN.replace('"|"', '"||"'), "separator"),
    ],
)
def test_an_error_names_the_nearest_name_and_the_likely_cause(tmp_path, content, mapping, expected):
    (tmp_path / "t.csv").write_text(content or "")

    def read():
        list(TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path, mapping)).chunks())

    with pytest.raises(MappingError) as raised:
        read()
    assert expected in str(raised.value)


def test_labels_may_be_separated_by_anything_common_and_compressed(tmp_path, world):
    table = pq.read_table(world / "labels.parquet").slice(0, 50)
    write_table(table, tmp_path / "l.csv")
    (tmp_path / "l.csv.gz").write_bytes(gzip.compress((tmp_path / "l.csv").read_bytes().replace(b",", b"\t")))
    assert read_labels(tmp_path / "l.csv.gz") == read_labels(tmp_path / "l.csv")
    assert len(read_labels(tmp_path / "l.csv.gz")) == 50


def test_words_and_blank_cells_may_be_labels(tmp_path):
    label = '[label]\ncolumn = "state"\ndelay = "7d"\nfraud = ["Betrug"]\nlegitimate = ["ok", ""]\n'
    rows = [f"{row}|{state}" for row, state in zip(OWN_ROWS, ("betrug", "OK", ""), strict=True)]
    (tmp_path / "t.csv").write_text("\n".join([OWN_HEADER + "|state", *rows, OWN_ROWS[0].replace("1|", "9|", 1) + "|maybe"]))
    source = TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path, OWN + label), rejects=tmp_path / "rejects.jsonl")
    (chunk,) = source.chunks()
    assert chunk.fraud.tolist() == [True, False, False]
    (reject,) = _rejects(tmp_path)
    assert reject["reason"].startswith("the label 'maybe' is neither fraud (Betrug) nor legitimate (ok, )")


def test_reasons_are_counted_and_the_rejects_of_an_earlier_run_are_removed(tmp_path):
    (tmp_path / "rejects.jsonl").write_text("old")
    (tmp_path / "t.csv").write_text("\n".join([OWN_HEADER, *OWN_ROWS, "4|2024-03-02|09:00|c|s|x", "5|2024-03-02|09:00|c|s|y"]))
    source = TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path), rejects=tmp_path / "rejects.jsonl")
    list(source.chunks())
    assert [count for _, count in source.reasons.most_common()] == [2]
    assert len(_rejects(tmp_path)) == 2
    (tmp_path / "t.csv").write_text("\n".join([OWN_HEADER, *OWN_ROWS]))
    again = TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path), rejects=tmp_path / "rejects.jsonl")
    list(again.chunks())
    assert not (tmp_path / "rejects.jsonl").exists()


def test_a_point_among_thousands_never_becomes_a_decimal_point(tmp_path):
    mapping = _own_mapping(tmp_path, OWN.replace('separator = "|"', 'separator = "|"\ndecimal = ","'))
    rows = [f"{n}|2024-03-01|09:00|c|s|{amount}" for n, amount in enumerate(("1234,5", "1.234", "1.234,50", "7"))]
    (tmp_path / "t.csv").write_text("\n".join([OWN_HEADER, *rows]))
    source = TransactionFile(tmp_path / "t.csv", mapping)
    assert [t.amount for t in transactions_of(source)] == [123_450, 700]
    assert source.rejected == 2


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (('"|"', '"§"'), "separator"),
        (('"datetime"', '"datetime"\ntime_format = "%Q"'), "time_format"),
        (('"datetime"', '"datetime"\ntime_format = "%d %d"'), "time_format"),
    ],
)
def test_a_mapping_that_no_reader_can_follow_is_refused(tmp_path, change, expected):
    with pytest.raises(MappingError, match=expected):
        _own_mapping(tmp_path, OWN.replace(*change))


@pytest.mark.parametrize("content", [b"id|day\rx|y\r" * 50_000, b"x" * 200_000])
def test_lines_without_an_end_are_an_error_without_a_traceback(tmp_path, content):
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(InputError):
        list(TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path)).chunks())


def test_a_damaged_archive_is_an_error_without_a_traceback(tmp_path):
    packed = bytearray(gzip.compress("\n".join([OWN_HEADER, *OWN_ROWS * 500]).encode()))
    packed[200:220] = b"\0" * 20
    (tmp_path / "t.csv.gz").write_bytes(packed)
    with pytest.raises(InputError, match="cannot be read"):
        list(TransactionFile(tmp_path / "t.csv.gz", _own_mapping(tmp_path)).chunks())


def test_a_folder_may_hold_its_rejects_hidden_files_and_texts(tmp_path):
    folder = tmp_path / "days"
    folder.mkdir()
    (folder / "1.csv").write_text("\n".join([OWN_HEADER, OWN_ROWS[0], "broken"]))
    for name in (".hidden.csv", "notes.txt"):
        (folder / name).write_text("no data")
    for _ in range(2):
        source = TransactionFile(folder, _own_mapping(tmp_path), rejects=folder / "rejects.jsonl")
        assert [t.transaction_id for t in transactions_of(source)] == ["1"]
        assert source.rejected == 1
    digest = source.digest
    (folder / "2.csv").write_text("arrived later")
    assert source.digest == digest, "the digest is of what was read"
    with pytest.raises(InputError, match=r"name their file \.jsonl"):
        TransactionFile(folder, _own_mapping(tmp_path), rejects=tmp_path / "labels.csv")


def test_a_label_with_too_few_columns_names_its_line(tmp_path, world, capfd):
    write_table(pq.read_table(world / "labels.parquet").slice(0, 5), tmp_path / "l.csv")
    with (tmp_path / "l.csv").open("a") as file:
        file.write("1,2\n")
    with pytest.raises(InputError, match="line 7: 2 columns instead of"):
        read_labels(tmp_path / "l.csv")
    assert "Traceback" not in capfd.readouterr().err


def test_labels_in_a_file_of_another_name_are_json_lines(tmp_path, world):
    (label, *_) = read_labels(world / "labels.parquet")
    (tmp_path / "labels.json").write_bytes(encode(label))
    assert read_labels(tmp_path / "labels.json") == [label]


def test_a_file_that_is_not_utf_8_says_how_to_convert_it(tmp_path):
    (tmp_path / "t.csv").write_bytes("id|Händler\n".encode("latin1"))
    with pytest.raises(InputError, match="iconv"):
        list(TransactionFile(tmp_path / "t.csv", _own_mapping(tmp_path)).chunks())
