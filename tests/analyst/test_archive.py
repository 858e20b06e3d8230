"""Archive tests, run on both SQLite and a real PostgreSQL."""

import asyncio
import random
import tempfile
from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from analyst.archive import Archive, Source
from analyst.queue import Queue
from analyst.tables import archived_decisions, archived_labels, archived_transactions
from core.clock import MS_PER_DAY, MS_PER_HOUR, FixedClock
from core.errors import DatabaseError
from core.messages import (
    Channel,
    Decision,
    Label,
    LabelSource,
    Outcome,
    Transaction,
    decode_dead_letter,
    encode,
)
from core.metrics import MATURED
from core.privacy.masking import Privacy
from core.topics import DECISIONS, LABELS, TRANSACTIONS
from explain.facts.categories import category_name
from explain.facts.history import Payment, card_history, habits_of, home_area, kilometres, last_payments
from streams.stages.archive import ArchiveStage
from streams.stages.stage import Chunk
from tests.conftest import DAY, METRICS, metric
from tests.strategies import examples
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile, read_labels
from training.replay import transactions_of

NOW = 1_760_000_000_000
LOG_APPENDED = 1


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/archive.db"
        return
    server = request.getfixturevalue("postgres")
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE archive"))
    yield make_url(server).set(database="archive").render_as_string(hide_password=False)
    with admin.connect() as connection:
        connection.execute(text("DROP DATABASE archive WITH (FORCE)"))
    admin.dispose()


@pytest.fixture
def archive(url):
    opened = Archive(url, FixedClock(NOW), days=100)
    opened.migrate()
    yield opened
    opened.close()


def rows(archive, table):
    with archive._engine.connect() as connection:
        return connection.execute(table.select().order_by(table.c.source_offset)).mappings().all()


def transaction(number=0, **changes):
    made = Transaction(
        transaction_id=f"t{number}", event_time=NOW - MS_PER_HOUR + number, card_id="c1", merchant_id="m1", amount=1_000,
        currency="EUR", mcc="5411", merchant_name='Müller, "Söhne"\nNachf.', country="FR", channel=Channel.ONLINE, device_id="d1",
        lat=48.8, lon=2.3,
    )  # fmt: skip
    return structs.replace(made, **changes)


def decision(number=0, **changes):
    made = Decision(
        transaction_id=f"t{number}", card_id="c1", merchant_id="m1", event_time=NOW, amount=1_000, currency="EUR", outcome=Outcome.REVIEW,
        probability=0.5, bundle="b",
    )  # fmt: skip
    return structs.replace(made, **changes)


def label(number=0, **changes):
    made = Label(
        transaction_id=f"t{number}", card_id="c1", merchant_id="m1", event_time=NOW, label_time=NOW, fraud=True,
        source=LabelSource.ANALYST,
    )  # fmt: skip
    return structs.replace(made, **changes)


def sources(count, written=NOW, first=0):
    return [Source(written, 0, first + number) for number in range(count)]


def record(value, offset=0, topic=TRANSACTIONS, timestamp=NOW, key=b"k"):
    return SimpleNamespace(
        topic=topic, partition=0, offset=offset, timestamp=timestamp, timestamp_type=LOG_APPENDED, key=key,
        value=value if isinstance(value, bytes) else encode(value),
    )  # fmt: skip


def test_fields_round_trip_and_storing_a_record_again_changes_nothing(archive):
    bare = Transaction(
        transaction_id="t", event_time=NOW, card_id="c", merchant_id="m", amount=0, currency="JPY", merchant_name=""
    )
    for _ in range(2):
        archive.add_transactions(sources(2), [transaction(), bare])
    first, second = rows(archive, archived_transactions)
    for stored, sent in ((first, transaction()), (second, bare)):
        for name in archived_transactions.columns.keys()[3:]:
            assert stored[name] == getattr(sent, name), name


def test_decisions_and_labels_round_trip(archive):
    doubted = decision(probability=None, reason_codes=("event_late", "transaction_id_reused"), expected_loss=7)
    archive.add_decisions(sources(1), [doubted])
    archive.add_labels(sources(1), [label()])
    (stored,) = rows(archive, archived_decisions)
    assert (stored["outcome"], stored["probability"], stored["reason_codes"]) == (
        "review",
        None,
        "event_late transaction_id_reused",
    )
    (stored,) = rows(archive, archived_labels)
    assert (stored["fraud"], stored["source"]) == (True, "analyst")


def test_records_expire_after_the_retention(archive, url):
    days = (0, 1, 99, 100, 101)
    for number, day in enumerate(days):
        archive.add_transactions(sources(1, NOW - day * MS_PER_DAY, number), [transaction(number)])
    assert [row["source_offset"] for row in rows(archive, archived_transactions)] == [0, 1, 2, 3], "too old to be kept"
    later = Archive(url, FixedClock(NOW + 2 * MS_PER_DAY), days=100)
    assert later.expire() == 2
    assert [row["source_offset"] for row in rows(archive, archived_transactions)] == [0, 1]
    assert later.expire() == 0
    later.add_transactions(sources(1, NOW, 9), [transaction(9)])
    later.close()


def test_card_history_matches_a_full_scan_of_the_file(archive, world, tmp_path):
    """Compare history for cards, merchants and devices with a plain Python scan of the same transactions."""
    table = pq.read_table(world / "transactions.parquet").slice(0, 15_000)
    pq.write_table(table, tmp_path / "archived.parquet")
    everything = list(transactions_of(TransactionFile(tmp_path / "archived.parquet", load_mapping("whyflag"))))
    labels = read_labels(world / "labels.parquet", Privacy())
    newest = everything[-1].event_time
    archive._clock = FixedClock(newest)
    for begin in range(0, len(everything), 5_000):
        piece = everything[begin : begin + 5_000]
        archive.add_transactions([Source(one.event_time, 0, begin + i) for i, one in enumerate(piece)], piece)
    archive.add_labels([Source(one.label_time, 0, i) for i, one in enumerate(labels)], labels)
    rng = random.Random(1)
    for asked in rng.sample(everything[5_000:], 25):
        told = card_history(asked, archive)
        since = asked.event_time - 90 * MS_PER_DAY
        past = [one for one in everything if since <= one.event_time < asked.event_time]
        mine = [one for one in past if one.card_id == asked.card_id]
        amounts = sorted(one.amount for one in mine if one.currency == asked.currency)
        assert told.complete
        assert told.habits.payments == len(mine)
        if amounts:
            assert told.habits.median in amounts
            assert sum(amount <= told.habits.median for amount in amounts) >= len(amounts) / 2
            assert sum(amount < told.habits.median for amount in amounts) <= len(amounts) / 2
            assert told.usual_rank == sum(amount < asked.amount for amount in amounts) / len(amounts)
        assert [one.payment.transaction_id for one in told.last] == [one.transaction_id for one in mine[::-1][:12]]
        assert told.here.payments == sum(one.merchant_id == asked.merchant_id for one in mine)
        here = [one for one in past if one.merchant_id == asked.merchant_id]
        assert (told.merchant.payments, told.merchant.cards) == (len(here), len({one.card_id for one in here}))
        reported = {
            (one.card_id, one.transaction_id): one.fraud
            for one in sorted(labels, key=lambda one: one.label_time)
            if one.merchant_id == asked.merchant_id and since <= one.event_time and one.label_time < asked.event_time
        }
        assert told.merchant.frauds == sum(reported.values())
        assert told.merchant.cards_with_fraud == len({card for (card, _), fraud in reported.items() if fraud})
        if asked.device_id:
            used = [one for one in past if one.device_id == asked.device_id]
            assert (told.device_at_large.payments, told.device_at_large.cards) == (len(used), len({one.card_id for one in used}))
            mine_on_it = [one.event_time for one in mine if one.device_id == asked.device_id]
            assert (told.device is None) == (not mine_on_it)
            if mine_on_it:
                assert (told.device.payments, told.device.first, told.device.last) == (
                    len(mine_on_it),
                    mine_on_it[0],
                    mine_on_it[-1],
                )


def test_history_is_incomplete_until_the_transaction_is_archived(archive):
    archive.add_transactions(sources(1), [transaction(0)])
    assert card_history(transaction(0), archive).complete
    assert not card_history(transaction(1), archive).complete


def test_a_later_label_corrects_an_earlier_one(archive):
    archive.add_transactions(sources(2), [transaction(0), transaction(1)])
    base = label(event_time=NOW - MS_PER_HOUR, label_time=NOW - 50, source=LabelSource.CHARGEBACK)
    archive.add_labels(sources(1), [base])
    assert archive.merchant("m1", 0, NOW).frauds == 1
    archive.add_labels(sources(1, first=1), [structs.replace(base, label_time=NOW - 40, fraud=False)])
    assert archive.merchant("m1", 0, NOW).frauds == 0
    assert archive.merchant("m1", 0, NOW - 45).frauds == 1, "not known yet at that time"


def test_a_resent_payment_counts_once(archive):
    honest = [transaction(number) for number in range(5)]
    repeated = transaction(9, amount=99_900, device_id="d2")
    archive.add_transactions(sources(5), honest)
    archive.add_transactions(sources(2_100, first=5), [repeated] * 2_100)
    told = card_history(transaction(100), archive)
    assert (told.habits.payments, told.habits.median, told.merchant.payments) == (6, 1_000, 6)
    assert [use.payments for use in told.habits.devices] == [5, 1]


def test_history_reports_how_many_days_a_young_archive_covers(archive):
    assert card_history(transaction(0, event_time=NOW), archive).days == 0
    archive.add_transactions(sources(1, NOW - 3 * MS_PER_DAY), [transaction(0)])
    assert card_history(transaction(1, event_time=NOW), archive).days == 3
    archive.add_transactions(sources(1, NOW - 99 * MS_PER_DAY), [transaction(2)])
    assert card_history(transaction(1, event_time=NOW), archive).days == 90


@pytest.mark.system
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_dropped_partition_is_recreated(archive, url):
    archive.add_transactions(sources(1), [transaction(0)])
    with archive._engine.begin() as connection:
        (name,) = connection.execute(text("SELECT relname FROM pg_class WHERE relname ~ 'archived_transactions_[0-9]{8}$'")).one()
        connection.execute(text(f"DROP TABLE {name}"))
    assert processed(archive, TRANSACTIONS, [record(transaction(1), 1)]) == []
    assert [row["transaction_id"] for row in rows(archive, archived_transactions)] == ["t1"]


@pytest.mark.system
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_long_query_blocks_neither_new_partitions_nor_the_queue_and_delays_only_its_own_partition_drop(archive, url):
    archive.add_transactions(sources(1), [transaction(0)])
    later = Archive(url, FixedClock(NOW + 101 * MS_PER_DAY), days=100)
    reader = archive._engine.connect()
    reader.execute(text("SELECT count(*) FROM archived_transactions")).all()  # and its transaction stays open
    later.add_transactions(sources(1, NOW + 101 * MS_PER_DAY, 1), [transaction(1)])
    Queue(url, FixedClock(NOW)).close()
    assert later.expire() == 0
    reader.close()
    assert later.expire() == 1
    assert [row["transaction_id"] for row in rows(later, archived_transactions)] == ["t1"]
    later.close()


@pytest.mark.system
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_a_partition_created_by_an_administrator_is_left_alone(archive, url):
    with archive._engine.begin() as connection:
        connection.execute(text("CREATE TABLE others PARTITION OF archived_labels DEFAULT"))
    assert archive.expire() == 0
    archive.add_transactions(sources(1), [transaction(0)])
    assert len(rows(archive, archived_transactions)) == 1


def test_an_unreachable_archive_raises_a_database_error(tmp_path):
    away = Archive("postgresql+psycopg://nobody@127.0.0.1:1/none", FixedClock(NOW), days=100)
    with pytest.raises(DatabaseError, match="does not answer"):
        away.payments_of_card("c", 0, NOW)
    with pytest.raises(DatabaseError, match="WHYFLAG_ARCHIVE"):
        away.migrate()
    away.close()


# -- the stage ----------------------------------------------------------------------------------------------------------------


def processed(archive, topic, records, privacy=None):
    stage = ArchiveStage(archive, privacy or Privacy(), FixedClock(NOW), 7 * MS_PER_DAY)
    return asyncio.run(stage.process([Chunk(topic, 0, records)]))


def test_the_stage_stores_only_records_that_the_scoring_worker_accepts(archive):
    ahead = transaction(3, event_time=NOW + MS_PER_HOUR + 1)
    letters = processed(
        archive, TRANSACTIONS, [record(transaction(0), 0), record(b"{", 1), record(ahead, 2), record(transaction(4), 3)]
    )
    assert letters == []
    assert [row["transaction_id"] for row in rows(archive, archived_transactions)] == ["t0", "t4"]


def test_the_stage_stores_card_numbers_as_the_tokens_of_the_stream(archive):
    privacy = Privacy(b"sixteen bytes or more")
    processed(archive, TRANSACTIONS, [record(transaction(0, card_id="4111111111111111"))], privacy)
    (stored,) = rows(archive, archived_transactions)
    assert stored["card_id"] == privacy.private("card_id", "4111111111111111")
    (letter,) = processed(archive, TRANSACTIONS, [record(transaction(1, card_id="4111111111111111"), 1)])
    assert decode_dead_letter(letter.values[0]).error == "MissingKeyError"


def test_a_record_that_the_database_refuses_is_a_dead_letter_and_the_others_are_stored(archive, url):
    good = decision()
    bad = structs.replace(good, bundle="b" * 65) if "sqlite" not in url else structs.replace(good, bundle="\0")
    records = [record(bad if number == 5 else good, number, DECISIONS) for number in range(9)]
    letters = processed(archive, DECISIONS, records)
    stored = [row["source_offset"] for row in rows(archive, archived_decisions)]
    if "sqlite" in url:  # SQLite accepts every value that passes decoding
        assert (letters, stored) == ([], list(range(9)))
        return
    assert [decode_dead_letter(letter.values[0]).offset for letter in letters] == [5]
    assert stored == [0, 1, 2, 3, 4, 6, 7, 8]


def test_an_invalid_decision_becomes_a_dead_letter(archive):
    (letter,) = processed(archive, DECISIONS, [record(b"{}", 7, DECISIONS)])
    assert decode_dead_letter(letter.values[0]).offset == 7


def test_labels_pass_through_the_stage(archive):
    assert processed(archive, LABELS, [record(label(), 0, LABELS), record(b"no", 1, LABELS)]) == []
    assert len(rows(archive, archived_labels)) == 1


@pytest.mark.system
@pytest.mark.parametrize("url", ["postgresql"], indirect=True)
def test_an_outage_raises_an_error_instead_of_writing_a_dead_letter(url, archive):
    admin = create_engine(make_url(url).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("ALTER DATABASE archive ALLOW_CONNECTIONS false"))
        connection.execute(text("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'archive'"))
    with pytest.raises(DatabaseError, match="WHYFLAG_ARCHIVE"):
        processed(archive, TRANSACTIONS, [record(transaction(0))])
    with admin.connect() as connection:
        connection.execute(text("ALTER DATABASE archive ALLOW_CONNECTIONS true"))
    admin.dispose()
    assert processed(archive, TRANSACTIONS, [record(transaction(0))]) == []
    assert len(rows(archive, archived_transactions)) == 1


# -- habits -------------------------------------------------------------------------------------------------------------------


def payment(number, **changes):
    made = Payment(
        transaction_id=f"t{number}", event_time=NOW + number * MS_PER_HOUR, merchant_id="m", amount=100, currency="EUR"
    )
    return structs.replace(made, **changes)


def test_habits_of_a_card():
    payments = [
        payment(0, amount=100, mcc="5411", channel=Channel.ONLINE),
        payment(1, amount=300, mcc="5411", channel=Channel.CARD_PRESENT),
        payment(2, amount=900, mcc="5812", channel=Channel.CARD_PRESENT),
        payment(3, amount=5, currency="JPY"),
    ]
    habits = habits_of(payments, "EUR", payments[0].event_time + 2 * MS_PER_DAY)
    assert (habits.payments, habits.days, habits.median, habits.high, habits.online) == (4, 2.0, 300, 900, 1 / 3), (
        "the online share counts only the three payments whose channel is known"
    )
    assert [(one.name, one.share) for one in habits.categories] == [("supermarket", 0.5), ("restaurant", 0.25)]
    hour = payments[0].event_time // MS_PER_HOUR % 24
    expected = Counter((hour + n) % 24 // 6 for n in range(4))
    assert habits.hours == tuple(expected[quarter] / 4 for quarter in range(4))


def test_a_card_without_a_past_has_no_habits():
    habits = habits_of([], "EUR", NOW)
    assert (habits.payments, habits.median, habits.home, habits.devices) == (0, None, None, ())
    assert last_payments([], None) == ()


def test_home_is_the_area_of_most_card_present_payments():
    lille, barcelona = (50.63, 3.06), (41.39, 2.17)
    at = [payment(n, lat=lille[0] + n / 1000, lon=lille[1], channel=Channel.CARD_PRESENT) for n in range(6)]
    at += [payment(n, lat=barcelona[0], lon=barcelona[1], channel=Channel.CARD_PRESENT) for n in range(6, 8)]
    at += [payment(n, lat=0.0, lon=0.0, channel=Channel.ONLINE) for n in range(8, 30)]
    home = home_area(at)
    assert kilometres(home.lat, home.lon, *lille) < 5
    assert home.share == 0.75
    assert last_payments(at[:7], home)[0].distance == pytest.approx(1029, rel=0.02)  # Lille to Barcelona
    assert home_area(at[8:]) is None


def test_last_payments_mark_merchants_and_devices_known_before_each_payment():
    told = last_payments([payment(0, device_id="d"), payment(1, device_id="d", merchant_id="n"), payment(2)], None)
    assert [(one.known_merchant, one.known_device) for one in told] == [(True, None), (False, True), (False, False)]
    assert len(last_payments([payment(n) for n in range(40)], None)) == 12


@pytest.mark.parametrize(
    ("code", "name"),
    [("5411", "supermarket"), ("3001", "airline"), ("3640", "hotel"), ("9999", "category 9999"), (None, "no category")],
)
def test_categories_have_names(code, name):
    assert category_name(code) == name


def test_files_fill_the_archive_and_the_same_rows_from_another_file_change_nothing(world, tmp_path):
    from click.testing import CliRunner

    from cli.operations.archive import command
    from core.clock import SystemClock

    url, now = f"sqlite:///{tmp_path}/archive.db", SystemClock().now_ms()
    table = pq.read_table(world / "transactions.parquet").slice(0, 100)
    recent = pa.array([now - MS_PER_HOUR] * 100, table.schema.field("event_time").type)
    table = table.set_column(table.schema.get_field_index("event_time"), "event_time", recent)
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        pq.write_table(table.slice(0 if folder == "a" else 50), tmp_path / folder / "history.parquet")
        options = ["--transactions", str(tmp_path / folder / "history.parquet"), "--labels", str(world / "labels.parquet")]
        done = CliRunner().invoke(command, options, env={"WHYFLAG_ARCHIVE": url}, catch_exceptions=False)
        assert done.exit_code == 0
    filled = Archive(url, SystemClock(), days=100)
    assert len(rows(filled, archived_transactions)) == 100
    filled.close()


# -- outcomes of decisions ----------------------------------------------------------------------------------------------------


@examples(30)
@given(
    made=st.lists(st.tuples(st.integers(0, 6), st.sampled_from(Outcome), st.integers(0, 9)), max_size=12),
    told=st.lists(st.tuples(st.integers(0, 6), st.booleans()), max_size=12),
)
def test_outcomes_are_counted_as_in_plain_python(made, told):
    """Each decision is written twice, as after a crash; the last label of a transaction wins."""
    made = list({number: (number, outcome, hour) for number, outcome, hour in made}.values())
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(f"sqlite:///{folder}/archive.db", FixedClock(NOW), days=100)
        archive.migrate()
        for again in range(2):
            for at, (number, outcome, hour) in enumerate(made):
                source = Source(NOW - hour * MS_PER_HOUR, 0, 100 * again + at)
                archive.add_decisions([source], [decision(number, outcome=outcome, probability=0.25)])
        for at, (number, fraud) in enumerate(told):
            archive.add_labels([Source(NOW, 0, at)], [label(number, fraud=fraud, label_time=NOW + at)])
        found = archive.outcomes(NOW - 6 * MS_PER_HOUR, NOW - MS_PER_HOUR)
        archive.close()
    frauds = dict(told)
    expected = Counter((o is not Outcome.APPROVE, frauds.get(n, False)) for n, o, hour in made if 1 < hour <= 6)
    assert {(one.alert, one.fraud): one.decisions for one in found} == expected
    assert sum(one.probability for one in found) == pytest.approx(0.25 * expected.total())


def test_outcomes_on_every_database(archive):
    archive.add_decisions(sources(3), [decision(n, outcome=Outcome.DECLINE if n else Outcome.APPROVE) for n in range(3)])
    archive.add_labels(sources(2), [label(1), label(2, fraud=False)])
    found = {(one.alert, one.fraud): one.decisions for one in archive.outcomes(NOW, NOW + 1)}
    assert found == {(False, False): 1, (True, True): 1, (True, False): 1}


def test_the_stage_measures_outcomes_after_the_label_delay_and_again_after_a_restart(archive):
    archive.add_decisions(sources(2, NOW - 8 * DAY), [decision(0), decision(1)])
    archive.add_labels(sources(1), [label(1)])
    for _ in range(2):
        MATURED.clear()
        processed(archive, TRANSACTIONS, [record(transaction(5), 9)])
        assert metric("whyflag_matured_decisions", alert="true", fraud="true") == 1
        assert metric("whyflag_matured_decisions", alert="true", fraud="false") == 1
        assert METRICS.get_sample_value("whyflag_matured_decisions", {"alert": "false", "fraud": "true"}) == 0
