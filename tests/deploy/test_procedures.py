"""The procedures of the deployment guide: backup and restore, migration back and forward, rotation of keys."""

import shutil
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from sqlalchemy import create_engine, func, inspect, make_url, select, text

from analyst.access.accounts import Accounts
from analyst.access.roles import Actor, Permission, Role
from analyst.access.sessions import Tokens
from analyst.access.throttle import Throttle
from analyst.archive import Archive, Source
from analyst.cases import Cases
from analyst.policy import QueuePolicy
from analyst.queue import Queue
from analyst.verification import verify
from cli.main import whyflag
from core.clock import SystemClock
from core.errors import AuditKeyError, BundleError, SignInError
from core.messages import AuditAnchor, Finding, encode
from core.privacy.masking import Privacy
from core.settings import Settings
from core.topics import AUDIT_ANCHORS
from models.bundles.signing import public_keys
from models.bundles.store import BundleStore
from streams.kafka.clients import Sender
from streams.kafka.embedded import API_VERSION, EmbeddedBroker
from streams.stages.decider_sources import StoreDeciderSource
from tests.analyst.conftest import decide, ids_of
from tests.conftest import DAY, needs

KEY = "a key of the audit trail"
OPERATOR = Actor("ops", Role.ADMIN)


def run(*arguments, status=0):
    done = CliRunner().invoke(whyflag, [str(one) for one in arguments])
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def opened(url, key=KEY):
    return Queue(url, SystemClock(), QueuePolicy(), key.encode())


def filled(url, explained, bundle):
    """Fill a queue and an archive as a running system does: alerts, verdicts, a user, cases, archived transactions."""
    queue = opened(url)
    for alert, explanation in explained[-8:]:
        queue.put(alert, explanation)
    Accounts(queue.database, queue.clock, Throttle(queue.database, queue.clock)).add(OPERATOR, "carol", Role.LEAD)
    for alert_id, finding in zip(ids_of(queue)[:3], (Finding.FRAUD, Finding.LEGITIMATE, Finding.FRAUD), strict=True):
        decide(queue, alert_id, finding)
    Cases(queue).fill(bundle)
    archive = Archive(url, queue.clock, 100)
    archive.migrate()
    messages = [alert.transaction for alert, _ in explained[-8:]]
    archive.add_transactions([Source(queue.clock.now_ms(), 0, offset) for offset in range(len(messages))], messages)
    archive.close()
    queue.close()


def counts(url):
    """Return the number of rows of each table."""
    engine = create_engine(url)
    try:
        with engine.connect() as connection:
            names = [name for name in inspect(connection).get_table_names() if not name[-1].isdigit()]
            return {
                name: connection.execute(select(func.count()).select_from(text(f'"{name}"'))).scalar_one()
                for name in sorted(names)
            }
    finally:
        engine.dispose()


def check_restored(url, original, bundle, tmp_path, monkeypatch):
    """The restored database has the same rows, an intact trail and the same cases, and the index follows from them."""
    assert counts(url) == original
    assert original["archived_transactions"] == 8
    monkeypatch.setenv("WHYFLAG_DATABASE", url)
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
    monkeypatch.setenv("WHYFLAG_CASEBOOK", str(tmp_path / "index"))
    assert "revision" in run("database", "migrate")
    assert "intact" in run("audit", "verify", "--without-kafka")
    assert "carol" in run("users", "list")
    queue = opened(url)
    expected = Cases(queue).count(bundle.version)
    queue.close()
    return expected


# -- backup and restore ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_database(postgres):
    """Yield a function that creates an empty database on the server and returns its URL."""
    server, made = make_url(postgres), []
    engine = create_engine(postgres, isolation_level="AUTOCOMMIT")

    def create(name):
        made.append(name)
        with engine.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
        return server.set(database=name).render_as_string(hide_password=False)

    yield create
    with engine.connect() as connection:
        for name in made:
            connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")
    engine.dispose()


@pytest.mark.system
def test_queue_and_archive_are_restored_by_pg_restore_and_the_casebook_from_sql(
    own_database, explained, bundle, bundle_dir, tmp_path, monkeypatch
):
    source, target = own_database("source"), own_database("target")
    filled(source, explained, bundle)
    original = counts(source)
    plain = [url.replace("postgresql+psycopg", "postgresql") for url in (source, target)]
    dump = tmp_path / "whyflag.dump"
    subprocess.run([needs("pg_dump"), "--format=custom", f"--file={dump}", plain[0]], check=True)
    restore = [needs("pg_restore"), "--exit-on-error", "--no-owner", "--no-privileges", f"--dbname={plain[1]}", dump]
    subprocess.run(restore, check=True)
    expected = check_restored(target, original, bundle, tmp_path, monkeypatch)
    assert f"{expected:,} cases" in run("cases", "rebuild", "--bundle", bundle_dir)


def test_a_sqlite_queue_is_copied_while_it_is_in_use_and_the_casebook_follows_from_sql(
    explained, bundle, bundle_dir, tmp_path, monkeypatch
):
    source, target = tmp_path / "whyflag.db", tmp_path / "restored.db"
    filled(f"sqlite:///{source}", explained, bundle)
    in_use = opened(f"sqlite:///{source}")
    with closing(sqlite3.connect(source)) as connection:
        connection.execute(f"VACUUM INTO '{target}'")
    in_use.close()
    expected = check_restored(f"sqlite:///{target}", counts(f"sqlite:///{source}"), bundle, tmp_path, monkeypatch)
    assert f"{expected:,} cases" in run("cases", "rebuild", "--bundle", bundle_dir)


def test_a_restore_of_an_older_backup_contradicts_the_anchors_until_the_loss_is_accepted(
    explained, bundle, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/whyflag.db"
    filled(url, explained, bundle)
    with closing(sqlite3.connect(tmp_path / "whyflag.db")) as connection:
        connection.execute(f"VACUUM INTO '{tmp_path}/backup.db'")
    queue = opened(url)
    kept = verify(queue, None).entries
    decide(queue, ids_of(queue)[0], Finding.FRAUD)
    with queue.reading() as connection:
        lost = connection.execute(text("SELECT number, hash FROM audit ORDER BY number DESC LIMIT 1")).one()
    queue.close()
    anchors = [AuditAnchor(number=lost.number, hash=lost.hash, at=SystemClock().now_ms())]
    queue = opened(f"sqlite:///{tmp_path}/backup.db")
    assert verify(queue, None).intact
    assert verify(queue, anchors).first_broken == kept + 1
    queue.close()
    with EmbeddedBroker() as broker:
        sender = Sender(Settings(kafka_bootstrap=broker.bootstrap, kafka_api_version=API_VERSION), 0)
        for anchor in anchors:
            sender.send(AUDIT_ANCHORS, b"", encode(anchor))
        sender.close()
        monkeypatch.setenv("WHYFLAG_DATABASE", f"sqlite:///{tmp_path}/backup.db")
        monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
        monkeypatch.setenv("WHYFLAG_KAFKA_BOOTSTRAP", broker.bootstrap)
        monkeypatch.setenv("WHYFLAG_KAFKA_API_VERSION", API_VERSION)
        assert f"BROKEN: entry {kept + 1} " in run("audit", "verify", status=1)
        accepted = run("audit", "accept-loss", "--why", "backup of Monday")
        assert accepted == f"accepted: entries {kept + 1} to {lost.number} or later are lost\n"
        verified = run("audit", "verify")
    assert "lost, which os:" in verified
    assert "backup of Monday" in verified
    assert "intact" in verified


# -- upgrade and rollback -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def test_a_database_goes_back_and_forward_by_the_command_and_keeps_alerts_verdicts_and_trail(
    server, request, explained, bundle, tmp_path, monkeypatch
):
    url = f"sqlite:///{tmp_path}/q.db" if server == "sqlite" else request.getfixturevalue("own_database")("migrated")
    filled(url, explained, bundle)
    monkeypatch.setenv("WHYFLAG_DATABASE", url)
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
    before = counts(url)
    assert run("database", "migrate", "--revision", "0003") == "WHYFLAG_DATABASE: revision 0003\n"
    older = counts(url)
    assert "users" not in older
    run("database", "migrate")
    after = counts(url)
    kept = ("alerts", "alert_documents", "verdicts", "audit", "cases", "archived_transactions")
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert after["users"] == 0
    verified = CliRunner().invoke(whyflag, ["audit", "verify", "--without-kafka"])
    assert verified.output.count("CONTRADICTION") == 1
    assert "user carol is missing" in verified.output, "revision 0003 has no users"
    assert "/invitation/" in run("users", "invite", "carol", "--role", "lead")


def test_a_revision_that_does_not_exist_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WHYFLAG_DATABASE", f"sqlite:///{tmp_path}/q.db")
    done = CliRunner().invoke(whyflag, ["database", "migrate", "--revision", "9999"])
    assert done.exit_code != 0
    assert "this version knows 0001" in str(done.exception)


# -- rotation of keys -----------------------------------------------------------------------------------------------------------------


def test_the_audit_key_is_changed_by_a_command_and_programs_with_the_former_key_are_refused(
    explained, bundle, tmp_path, monkeypatch
):
    url, other = f"sqlite:///{tmp_path}/q.db", "another key of the audit trail"
    filled(url, explained, bundle)
    monkeypatch.setenv("WHYFLAG_DATABASE", url)
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
    assert "intact" in run("audit", "verify", "--without-kafka")
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", other)
    refused = CliRunner().invoke(whyflag, ["users", "add", "dave"])
    assert isinstance(refused.exception, AuditKeyError)
    monkeypatch.setenv("WHYFLAG_AUDIT_FORMER_KEYS", KEY)
    assert "run `whyflag audit change-key`" in run("audit", "verify", "--without-kafka", status=1)
    changed = run("audit", "change-key", "--without-kafka")
    run("users", "add", "dave")
    verified = run("audit", "verify", "--without-kafka")
    assert changed in verified
    assert "intact" in verified
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
    assert isinstance(CliRunner().invoke(whyflag, ["users", "add", "erin"]).exception, AuditKeyError)
    console = CliRunner().invoke(whyflag, ["console"])
    assert isinstance(console.exception, AuditKeyError), "a console with the former key does not start"


def test_a_broken_trail_gets_another_key_only_if_the_operator_insists(explained, bundle, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/q.db"
    filled(url, explained, bundle)
    with closing(sqlite3.connect(tmp_path / "q.db")) as connection, connection:
        connection.execute("UPDATE audit SET actor = 'eve' WHERE number = 2")
    monkeypatch.setenv("WHYFLAG_DATABASE", url)
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", "another key of the audit trail")
    monkeypatch.setenv("WHYFLAG_AUDIT_FORMER_KEYS", KEY)
    refused = CliRunner().invoke(whyflag, ["audit", "change-key", "--without-kafka"])
    assert "broken at entry 2" in str(refused.exception)
    assert "changed the audit key" in run("audit", "change-key", "--without-kafka", "--despite-broken")
    assert "BROKEN: entry 2 " in run("audit", "verify", "--without-kafka", status=1)


def _pem(path, key, private=False):
    if private:
        form = serialization.PrivateFormat.PKCS8
        path.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    else:
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        path.write_bytes(key.public_key().public_bytes(serialization.Encoding.PEM, form))
    return str(path)


def test_the_signing_key_is_rotated_while_workers_accept_both_keys(bundle_dir, other_bundle_dir, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYFLAG_DATABASE", f"sqlite:///{tmp_path}/q.db")
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    root, both = tmp_path / "store", tmp_path / "public.pem"
    store = BundleStore(root)
    champion = store.add(bundle_dir)
    store.promote(champion, "", "ops", "first", old)
    both.write_text("".join(Path(_pem(tmp_path / name, key)).read_text() for name, key in (("old.pem", old), ("new.pem", new))))
    keys = public_keys(both)
    running = StoreDeciderSource(BundleStore(root, keys), Privacy().fingerprint)
    assert running.newest().version == champion
    monkeypatch.setenv("WHYFLAG_BUNDLE_PUBLIC_KEY", str(both))
    assert "WHYFLAG_BUNDLE_SIGNING_KEY is not set" in str(
        CliRunner().invoke(whyflag, ["bundles", "sign", "--why", "x"]).exception
    )
    monkeypatch.setenv("WHYFLAG_BUNDLE_SIGNING_KEY", _pem(tmp_path / "signing.pem", new, private=True))
    challenger = store.add(other_bundle_dir)
    store.challenge(challenger)
    shown = run("bundles", "sign", "--store", root, "--why", "rotation of the signing key")
    assert f"signed {champion}\n" in shown
    assert f"not signed: {challenger}: " in shown, "nobody has signed the challenger"
    run("bundles", "challenge", challenger, "--store", root)
    assert BundleStore(root, (new.public_key(),)).load(challenger).version == challenger, "a new challenger is signed"
    running._looked = float("-inf")
    assert running.newest().version == champion
    assert BundleStore(root, (new.public_key(),)).load(champion).version == champion
    with pytest.raises(BundleError, match="matches no key"):
        BundleStore(root, (old.public_key(),)).load(champion)
    monkeypatch.setenv("WHYFLAG_BUNDLE_PUBLIC_KEY", str(tmp_path / "old.pem"))
    stranger = CliRunner().invoke(whyflag, ["bundles", "sign", "--store", str(root), "--why", "x"])
    assert isinstance(stranger.exception, BundleError), "what no accepted key has signed is not signed again"


def test_signatures_begin_on_purpose_and_cover_only_what_has_the_name_of_its_content(
    bundle_dir, other_bundle_dir, tmp_path, monkeypatch
):
    monkeypatch.setenv("WHYFLAG_DATABASE", f"sqlite:///{tmp_path}/q.db")
    key, root = Ed25519PrivateKey.generate(), tmp_path / "store"
    store = BundleStore(root)
    monkeypatch.setenv("WHYFLAG_BUNDLE_SIGNING_KEY", _pem(tmp_path / "signing.pem", key, private=True))
    options = ("--store", str(root), "--why", "x")
    assert "neither champion nor challenger" in run("bundles", "sign", *options, "--unsigned")
    champion, other = store.add(bundle_dir), store.add(other_bundle_dir)
    store.challenge(other)
    assert f"signed {other}" in run("bundles", "sign", *options, "--unsigned"), "a store without a champion"
    store.promote(champion, "", "ops", "first")
    refused = CliRunner().invoke(whyflag, ["bundles", "sign", *options])
    assert "use --unsigned" in str(refused.exception)
    assert f"signed {champion}" in run("bundles", "sign", *options, "--unsigned")
    shutil.rmtree(root / "bundles" / other)
    shutil.copytree(bundle_dir, root / "bundles" / other)
    with pytest.raises(BundleError):
        store.challenge(other, key)


def test_a_token_that_was_revoked_or_whose_owner_was_changed_no_longer_works(explained, bundle, tmp_path, monkeypatch):
    url = f"sqlite:///{tmp_path}/q.db"
    filled(url, explained, bundle)
    queue = opened(url)
    tokens = Tokens(queue.database, queue.clock)
    owner = Actor("carol", Role.LEAD)
    secret = tokens.create(owner, "script", (Permission.READ,), 30)
    assert tokens.find(secret).name == "carol"
    monkeypatch.setenv("WHYFLAG_DATABASE", url)
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
    run("users", "change", "carol", "--role", "lead")
    with pytest.raises(SignInError):
        tokens.find(secret)
    queue.close()


@pytest.mark.system
def test_a_second_database_role_acts_as_the_owner_of_the_tables(postgres, own_database, explained, bundle, monkeypatch):
    url = make_url(own_database("rotated"))
    admin = create_engine(postgres, isolation_level="AUTOCOMMIT")
    statements = [
        "CREATE ROLE owner_1 LOGIN PASSWORD 'one'",
        "ALTER DATABASE rotated OWNER TO owner_1",
        "CREATE ROLE owner_2 LOGIN PASSWORD 'two' IN ROLE owner_1",
        "ALTER ROLE owner_2 SET role = owner_1",
    ]
    with admin.connect() as connection:
        for statement in statements:
            connection.exec_driver_sql(statement)
    first, second = (url.set(username=name).render_as_string(hide_password=False) for name in ("owner_1", "owner_2"))
    try:
        filled(first, explained, bundle)
        with admin.connect() as connection:
            connection.exec_driver_sql("ALTER ROLE owner_1 NOLOGIN")
        archive = Archive(second, SystemClock(), 100)
        past = SystemClock().now_ms() - 5 * DAY
        archive.add_transactions([Source(past, 1, 1)], [explained[-1][0].transaction])  # creates the partition of another day
        archive.close()
        monkeypatch.setenv("WHYFLAG_DATABASE", second)
        monkeypatch.setenv("WHYFLAG_AUDIT_KEY", KEY)
        run("database", "migrate")
        assert "intact" in run("audit", "verify", "--without-kafka")
        engine = create_engine(second)
        with engine.connect() as connection:
            owners = connection.exec_driver_sql("SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'")
            assert owners.scalars().all() == ["owner_1"]
        engine.dispose()
    finally:
        with admin.connect() as connection:
            connection.exec_driver_sql("DROP DATABASE rotated WITH (FORCE)")
            connection.exec_driver_sql("DROP ROLE owner_2")
            connection.exec_driver_sql("DROP ROLE owner_1")
            connection.exec_driver_sql("CREATE DATABASE rotated")  # the fixture drops it
        admin.dispose()
