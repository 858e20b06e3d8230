"""Commands about the console: users, the audit trail, lists, retention; and that changes by commands are recorded."""

import shutil

import pytest
from click.testing import CliRunner

from analyst.access.accounts import Accounts
from analyst.access.roles import Permission
from analyst.access.sessions import Tokens
from analyst.access.throttle import Throttle
from analyst.audit import entries
from analyst.policy import QueuePolicy
from analyst.proposals import AddEntry, ListKey, ListName, Proposals
from analyst.queue import Queue
from analyst.verdicts import Opinion, Verdicts
from cli.identity import account
from cli.main import whyflag
from core.clock import SystemClock
from core.messages import Finding
from models.bundles.store import BundleStore
from tests.analyst.conftest import ADA, ANN, LEA, add_people, decide, ids_of

RULES = """
[lists.block_card]
key = "card_id"
owner = "fraud operations"
expires = 2099-01-01
file = "block_card.txt"

[[rules]]
id = "blocked"
owner = "fraud operations"
expires = 2099-01-01
when = "block_card"
outcome = "decline"
"""


@pytest.fixture
def queue(tmp_path, explained, monkeypatch):
    """A queue with five alerts, which the commands use."""
    url = f"sqlite:///{tmp_path}/queue.db"
    monkeypatch.setenv("WHYFLAG_DATABASE", url)
    monkeypatch.setenv("WHYFLAG_AUDIT_KEY", "a key of the audit trail")
    opened = Queue(url, SystemClock(), QueuePolicy(), b"a key of the audit trail")
    for alert, explanation in explained[-5:]:
        opened.put(alert, explanation)
    add_people(opened)
    yield opened
    opened.close()


def run(*arguments, status=0):
    done = CliRunner().invoke(whyflag, arguments, standalone_mode=True)
    assert done.exit_code == status, (done.output, done.exception)
    return done.output


def recorded(queue, action):
    with queue.reading() as connection:
        return [(one.actor, one.subject) for one in entries(connection, limit=500) if one.action == action]


def test_users_are_invited_added_changed_and_listed_under_the_accounts_own_name(queue):
    link = run("users", "invite", "carol", "--role", "lead").strip()
    accounts = Accounts(queue.database, queue.clock, Throttle(queue.database, queue.clock))
    accounts.accept(link.rpartition("/")[2], "correct horse battery")
    run("users", "add", "dave")
    run("users", "change", "dave", "--role", "auditor", "--disable")
    listed = run("users", "list")
    assert "carol                    lead\n" in listed
    assert "dave                     auditor, without a password, disabled" in listed
    assert recorded(queue, "user invited") == [(account()[:64], "carol")]
    assert account().startswith("os:")


def test_a_token_names_who_runs_a_command_and_limits_it(queue, monkeypatch):
    monkeypatch.setenv("WHYFLAG_TOKEN", Tokens(queue.database, queue.clock).create(ADA, "script", tuple(Permission), 1))
    run("users", "add", "dave")
    assert recorded(queue, "user added") == [("ada", "dave")]
    monkeypatch.setenv("WHYFLAG_TOKEN", Tokens(queue.database, queue.clock).create(LEA, "script", (Permission.READ,), 1))
    done = CliRunner().invoke(whyflag, ["users", "add", "eve"])
    assert "needs the permission" in str(done.exception)
    monkeypatch.setenv("WHYFLAG_TOKEN", "wrong")
    assert "unknown or has expired" in str(CliRunner().invoke(whyflag, ["users", "add", "eve"]).exception)


def test_the_trail_is_verified_and_a_broken_one_exits_with_1(queue):
    with queue.engine.begin() as connection:
        connection.exec_driver_sql("DELETE FROM users")  # people of the fixture, whom nobody recorded
    decide(queue, ids_of(queue)[0], Finding.FRAUD)
    assert "intact" in run("audit", "verify", "--without-kafka")
    with queue.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE audit SET actor = 'eve'")
    assert "BROKEN: entry 1" in run("audit", "verify", "--without-kafka", status=1)


def test_a_decision_is_shown_with_its_score_computed_again(queue, bundle_dir, monkeypatch):
    monkeypatch.setenv("WHYFLAG_BUNDLE", str(bundle_dir))
    alert = ids_of(queue)[0]
    decide(queue, alert, Finding.FRAUD, note="the customer called")
    shown = run("audit", "show", alert)
    assert "the same" in shown
    assert "ann: verdict" in shown


def test_a_purge_counts_first_and_deletes_then(queue):
    alert = ids_of(queue)[0]
    decide(queue, alert, Finding.FRAUD)
    with queue.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alerts SET closed_at = closed_at - 200000000 WHERE state = 'closed'")
    assert run("purge", "--days", "1", "--dry-run").startswith("1 alerts")
    assert queue.get(alert) is not None
    run("purge", "--days", "1")
    assert queue.get(alert) is None


def test_approved_lists_reach_the_rules_of_the_champion_and_a_rollback_passes_over_them(
    queue, bundle_dir, other_bundle_dir, tmp_path, monkeypatch
):
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "block_card.txt").write_text("")
    store = BundleStore(tmp_path / "store")
    first, second = store.add(bundle_dir), store.add(other_bundle_dir)
    rules = store.add_rules(tmp_path / "rules.toml", store.open(first).spec.feature_names)
    store.promote(first, rules, "ada", "first")
    store.promote(second, rules, "ada", "second")
    monkeypatch.setenv("WHYFLAG_BUNDLE", str(tmp_path / "store"))
    assert "not changed" in run("lists", "apply")
    proposals = Proposals(queue.database, queue.clock)
    proposals.approve(LEA, proposals.propose(ANN, AddEntry(ListName.BLOCK, ListKey.CARD, "card-7", "2028-01-01"), "stolen"))
    run("lists", "apply")
    champion = store.champion
    assert (champion.bundle, champion.rules != rules) == (second, True)
    assert (store.root / "rules" / champion.rules / "block_card.txt").read_text() == "card-7\n"
    assert "not changed" in run("lists", "apply")
    assert recorded(queue, "lists applied") == [(account()[:64], champion.decider)]
    run("bundles", "rollback", "--store", str(store.root), "--why", "worse")
    assert store.champion.bundle == first
    assert recorded(queue, "rolled back") == [(account()[:64], store.champion.decider)]
    run("lists", "export", str(tmp_path / "lists"))
    assert (tmp_path / "lists" / "block_card.txt").read_text() == "card-7\n"
    assert len(list((tmp_path / "lists").iterdir())) == 6


def test_rules_that_were_altered_in_the_store_are_not_signed_again(queue, bundle_dir, tmp_path, monkeypatch):
    (tmp_path / "rules.toml").write_text(RULES)
    (tmp_path / "block_card.txt").write_text("")
    store = BundleStore(tmp_path / "store")
    version = store.add(bundle_dir)
    rules = store.add_rules(tmp_path / "rules.toml", store.open(version).spec.feature_names)
    store.promote(version, rules, "ada", "first")
    altered = store.root / "rules" / rules / "rules.toml"
    shutil.copy(altered, tmp_path / "kept.toml")
    altered.write_text(RULES.replace("decline", "review"))
    monkeypatch.setenv("WHYFLAG_BUNDLE", str(store.root))
    done = CliRunner().invoke(whyflag, ["lists", "apply"])
    assert "were altered" in str(done.exception)


def test_a_store_is_needed_to_apply_lists(queue, tmp_path, monkeypatch):
    monkeypatch.setenv("WHYFLAG_BUNDLE", str(tmp_path))
    assert "not a bundle store" in str(CliRunner().invoke(whyflag, ["lists", "apply"]).exception)


def test_an_unknown_user_or_alert_is_a_clear_error(queue):
    for arguments in (["users", "change", "nobody"], ["audit", "show", "al_none"]):
        assert "no " in str(CliRunner().invoke(whyflag, arguments).exception)


def test_a_verdict_that_waits_is_not_purged(queue):
    alert = ids_of(queue)[0]
    Verdicts(queue).give(alert, Opinion(Finding.FRAUD), ANN, 0)
    with queue.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alerts SET closed_at = closed_at - 200000000 WHERE state = 'closed'")
    assert run("purge", "--days", "1").startswith("0 alerts")
