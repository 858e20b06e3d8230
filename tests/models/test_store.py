"""The bundle store: which bundle decides, which one a worker loads, and which ones are refused."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from msgspec import structs

from cli.main import whyflag
from core.errors import BundleError, InputError
from core.messages import Disagreement, decode_decision
from core.metrics import SHADOW
from core.privacy.masking import Privacy
from core.topics import DECISIONS, DISAGREEMENTS, PROFILED
from models.bundles.bundle import MANIFEST, load_bundle
from models.bundles.store import BundleStore, open_bundle
from models.features.spec import default_spec
from models.scorer import Decider
from streams.stages.decider_sources import SingleDecider, StoreDeciderSource
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from tests.conftest import DAY, transactions_file
from tests.models.test_rules import rule, written
from tests.streams.test_streams import _process, _record
from training.progress import NoProgress
from training.replay import transactions_of
from training.train import Recipe, train


@pytest.fixture(autouse=True)
def _database(tmp_path, monkeypatch):
    """Commands record what they change in the console's database."""
    monkeypatch.setenv("WHYFLAG_DATABASE", f"sqlite:///{tmp_path}/console.db")


@pytest.fixture
def store(tmp_path, bundle_dir, other_bundle_dir) -> BundleStore:
    """Return a store with two bundles, the first of which is champion."""
    store = BundleStore(tmp_path / "store")
    first = store.add(bundle_dir)
    store.add(other_bundle_dir)
    store.promote(first, "", "ops", "first")
    return store


@pytest.fixture
def versions(bundle_dir, other_bundle_dir) -> tuple[str, str]:
    return load_bundle(bundle_dir).version, load_bundle(other_bundle_dir).version


def _at_once(deciders: StoreDeciderSource) -> StoreDeciderSource:
    deciders._looked = float("-inf")
    return deciders


def test_promote_and_roll_back(store, versions):
    first, second = versions
    assert open_bundle(store.root).version == first
    store.challenge(second)
    store.promote(second, "", "ops", "better")
    assert store.current.challenger == "", "a promoted bundle is no longer the challenger"
    assert open_bundle(store.root).version == second
    store.promote(second, "", "ops", "again")
    assert store.rollback("ops", "worse").bundle == first
    assert [(past.bundle, past.why) for past in store.current.champions] == [
        (first, "first"), (second, "better"), (second, "again"), (first, "worse"),
    ]  # fmt: skip
    with pytest.raises(InputError, match="no other champion"):
        store.rollback("ops", "further back than the first")


def test_a_second_rollback_goes_further_back(store, versions, tmp_path):
    """After A, B, and B with rules, each rollback goes further back, never to a decider that was rolled back before."""
    first, second = versions
    rules = store.add_rules(written(tmp_path, rule("amount > 100")), default_spec().feature_names)
    store.promote(second, "", "ops", "")
    store.promote(second, rules, "ops", "")
    assert store.rollback("ops", "").decider == second
    assert store.rollback("ops", "").decider == first
    store.promote(second, rules, "ops", "")
    assert store.rollback("ops", "").decider == first


def test_a_decider_that_cannot_be_loaded_is_not_promoted(store, versions, tmp_path):
    rules = store.add_rules(written(tmp_path, rule("amount > 100")), default_spec().feature_names)
    with (store.root / "rules" / rules / "rules.toml").open("a") as file:
        file.write("# altered")
    with pytest.raises(BundleError, match="altered"):
        store.promote(versions[1], rules, "ops", "")
    assert store.champion.bundle == versions[0]


def test_missing_or_damaged_store_content_raises_an_error(store, tmp_path, bundle_dir):
    with pytest.raises(InputError, match="no bundle 'x'"):
        store.promote("x", "", "ops", "")
    with pytest.raises(InputError, match="no bundle"):
        store.challenge("x")
    with pytest.raises(InputError, match="no other champion"):
        store.rollback("ops", "")
    with pytest.raises(BundleError, match="whyflag train"):
        store.add(tmp_path)
    altered = tmp_path / "altered"
    shutil.copytree(bundle_dir, altered)
    (altered / "policy.json").write_bytes(b"{}")
    with pytest.raises(BundleError, match="altered"):
        store.add(altered)
    (store.root / "current.json").write_text("{")
    with pytest.raises(BundleError, match=r"current\.json"):
        open_bundle(store.root)


def test_a_worker_switches_to_a_new_champion_and_keeps_the_old_one_if_loading_fails(store, versions, caplog):
    first, second = versions
    deciders = StoreDeciderSource(store)
    assert deciders.newest().version == first
    store.promote(second, "", "ops", "better")
    assert deciders.newest().version == first, "the store is checked only once a second"
    assert _at_once(deciders).newest().version == second
    assert deciders.find(first).version == first, "the old bundle must stay available to repeat its decisions"
    assert deciders.find("unknown") is None
    # a champion that was damaged after its promotion
    store.promote(first, "", "ops", "back")
    assert _at_once(deciders).newest().version == first
    fresh = StoreDeciderSource(store)
    store.promote(second, "", "ops", "damaged after its promotion")
    (store.folder(second) / "policy.json").write_bytes(b"{}")
    assert _at_once(fresh).newest().version == first
    assert "altered" in caplog.text
    (store.root / "current.json").write_text("nonsense")
    assert _at_once(fresh).newest().version == first


def test_a_champion_of_other_features_is_refused_while_running(store, world, tmp_path, caplog):
    train(
        transactions_file(world), structs.replace(default_spec(), low_amount=400), labels=world / "labels.parquet", alerts_per_day=30, label_delay_ms=5 * DAY,
        out=tmp_path / "usd", seed=1, privacy=Privacy(), progress=NoProgress(), recipe=Recipe(rounds=20),
    )  # fmt: skip
    deciders = StoreDeciderSource(store)
    before = deciders.newest().version
    other = store.add(tmp_path / "usd")
    store.challenge(other)
    store.promote(other, "", "ops", "other features")
    assert _at_once(deciders).newest().version == before
    assert "state rebuild" in caplog.text


def test_rules_are_part_of_the_decider(store, versions, tmp_path):
    path = written(tmp_path, rule("amount > 100", id="BIG"))
    rules = store.add_rules(path, default_spec().feature_names)
    champion = store.promote(versions[0], rules, "ops", "with rules")
    decider = StoreDeciderSource(store).newest()
    assert decider.version == champion.decider == f"{versions[0]}+{rules}"
    assert decider.rules.ids == ("BIG",)
    assert store.rollback("ops", "without").rules == ""


def test_a_list_file_outside_the_folder_of_the_rules_is_refused(store, tmp_path):
    (tmp_path / "outside.txt").write_text("m")
    folder = tmp_path / "rules"
    folder.mkdir()
    path = folder / "rules.toml"
    path.write_text('[lists.x]\nkey = "merchant_id"\nowner = "o"\nexpires = 2030-01-01\nfile = "../outside.txt"\n')
    with pytest.raises(InputError, match="in the folder of the rules"):
        store.add_rules(path, default_spec().feature_names)


@pytest.fixture(scope="module")
def profiled(world, bundle):
    transactions = list(transactions_of(transactions_file(world)))[-3000:]
    stage = ProfileStage(bundle.spec, Privacy())
    from core.messages import encode
    from core.topics import TRANSACTIONS

    made = _process(stage, TRANSACTIONS, [_record(encode(transaction), offset=i) for i, transaction in enumerate(transactions)])
    return [_record(output.value, topic=PROFILED, offset=i) for i, output in enumerate(made) if output.topic == PROFILED]


def test_a_challenger_in_shadow_decides_nothing(store, versions, bundle, profiled):
    first, second = versions
    alone = _process(ScoreStage(bundle.spec, SingleDecider(Decider(bundle))), PROFILED, profiled)
    store.challenge(second)
    before = {pair: SHADOW.labels(*pair)._value.get() for pair in (("approve", "review"), ("approve", "approve"))}
    outputs = _process(ScoreStage(bundle.spec, StoreDeciderSource(store)), PROFILED, profiled)
    assert [o for o in outputs if o.topic != DISAGREEMENTS] == alone
    told = [json.loads(o.value) for o in outputs if o.topic == DISAGREEMENTS]
    mine = {d.transaction_id: d for d in (decode_decision(o.value) for o in alone if o.topic == DECISIONS)}
    # what the challenger decides by itself
    other = _process(ScoreStage(bundle.spec, SingleDecider(Decider(load_bundle(store.folder(second))))), PROFILED, profiled)
    theirs = {d.transaction_id: d for d in (decode_decision(o.value) for o in other if o.topic == DECISIONS)}
    expected = {t for t in mine if mine[t].outcome is not theirs[t].outcome}
    assert {d["transaction_id"] for d in told} == expected
    assert expected, "they never disagree: the test proves nothing"
    for d in told:
        assert d["challenger_probability"] == theirs[d["transaction_id"]].probability
        assert (d["champion"], d["challenger"]) == (first, second)
    assert set(told[0]) <= set(Disagreement.__struct_fields__)
    gained = sum(SHADOW.labels(*pair)._value.get() - was for pair, was in before.items())
    assert gained == sum(d.outcome == "approve" and theirs[t].outcome in ("review", "approve") for t, d in mine.items())


def test_a_failing_challenger_does_not_affect_decisions(store, versions, bundle, profiled, monkeypatch):
    store.challenge(versions[1])
    stage = ScoreStage(bundle.spec, StoreDeciderSource(store))
    monkeypatch.setattr("streams.stages.score.score", lambda *_: 1 / 0)
    outputs = _process(stage, PROFILED, profiled)
    assert outputs == _process(ScoreStage(bundle.spec, SingleDecider(Decider(bundle))), PROFILED, profiled)


def test_rules_in_the_stream_change_only_the_transactions_that_they_hit(store, versions, bundle, profiled, tmp_path):
    path = written(
        tmp_path,
        rule("amount > 150 AND channel = 'online'", "decline", "BIG")
        + rule("amount < 3 AND probability < 0.5", "approve", "LOW"),
    )
    store.promote(versions[0], store.add_rules(path, bundle.spec.feature_names), "ops", "rules")
    outputs = _process(ScoreStage(bundle.spec, StoreDeciderSource(store)), PROFILED, profiled)
    decided = [decode_decision(o.value) for o in outputs if o.topic == DECISIONS]
    plain = [
        decode_decision(o.value)
        for o in _process(ScoreStage(bundle.spec, SingleDecider(Decider(bundle))), PROFILED, profiled)
        if o.topic == DECISIONS
    ]
    hit = [d for d in decided if "BIG" in d.rule_hits]
    assert hit
    assert all(d.outcome == "decline" and "rule" in d.reason_codes and d.amount > 15_000 for d in hit)
    for d, p in zip(decided, plain, strict=True):
        assert d.probability == p.probability
        if not d.rule_hits:
            assert d == p
    assert any(
        "LOW" in d.rule_hits and p.outcome == "review" and d.outcome == "approve" for d, p in zip(decided, plain, strict=True)
    ) or (not any(p.outcome == "review" and p.amount < 300 for p in plain))


def test_a_rule_that_fails_sends_the_batch_to_review(bundle, profiled, tmp_path, monkeypatch):
    from models.rules import RuleSet, load_rules

    rules = load_rules(written(tmp_path, rule("amount > 150")), bundle.spec.feature_names)
    monkeypatch.setattr(RuleSet, "hits", lambda *_: 1 / 0)
    outputs = _process(ScoreStage(bundle.spec, SingleDecider(Decider(bundle, rules))), PROFILED, profiled[:10])
    decided = [decode_decision(o.value) for o in outputs if o.topic == DECISIONS]
    assert [d.outcome for d in decided] == ["review"] * len(decided)


def test_a_failure_of_the_rules_without_a_bundle_is_counted_once(bundle, profiled, tmp_path, monkeypatch):
    from core.metrics import SCORING_FAILURES
    from models.rules import RuleSet, load_rules

    rules = load_rules(written(tmp_path, rule("amount > 150")), bundle.spec.feature_names)
    monkeypatch.setattr(RuleSet, "hits", lambda *_: 1 / 0)
    before = SCORING_FAILURES._value.get()
    outputs = _process(ScoreStage(bundle.spec, SingleDecider(Decider(None, rules))), PROFILED, profiled[:10])
    decided = [decode_decision(o.value) for o in outputs if o.topic == DECISIONS]
    assert SCORING_FAILURES._value.get() - before == len(decided) > 0


def _run(*arguments):
    return CliRunner().invoke(whyflag, [str(argument) for argument in arguments])


def test_a_bundle_goes_through_the_gates_from_the_command_line(world, bundle_dir, tmp_path, versions, other_bundle_dir):
    root = tmp_path / "bundles"
    files = ("--transactions", world / "transactions.parquet", "--labels", world / "labels.parquet")
    assert _run("bundles", "add", bundle_dir, "--store", root).exit_code == 0
    first = _run("bundles", "promote", versions[0], "--store", root, *files, "--why", "first")
    assert first.exit_code == 0, first.output
    assert "FAILED" not in first.output
    for gate in ("conformance: contributions", "quality", "calibration", "drift"):
        assert f"passed  {gate}" in first.output
    added = _run("bundles", "add", other_bundle_dir, "--store", root, "--challenge")
    assert added.exit_code == 0, added.output
    listed = _run("bundles", "list", "--store", root).output
    assert f"{versions[0]}  champion" in listed
    assert f"{versions[1]}  challenger" in listed
    again = _run("bundles", "promote", versions[0], "--store", root, "--why", "again")
    assert again.exit_code != 0
    assert "champion already" in str(again.exception)
    without = _run("bundles", "promote", versions[1], "--store", root, "--why", "no file for the gates")
    assert "add --transactions" in str(without.exception)


def test_a_champion_that_can_no_longer_be_read_is_replaced_despite_the_gates(
    world, bundle_dir, tmp_path, versions, other_bundle_dir
):
    root = tmp_path / "bundles"
    BundleStore(root).add(bundle_dir)
    BundleStore(root).add(other_bundle_dir)
    BundleStore(root).promote(versions[0], "", "ops", "first")
    manifest = root / "bundles" / versions[0] / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 2', '"format": 1'))
    files = ("--transactions", world / "transactions.parquet", "--labels", world / "labels.parquet", "--store", root)
    refused = _run("bundles", "promote", versions[1], *files, "--why", "upgrade")
    assert "FAILED  champion " in refused.output
    assert "a gate failed" in str(refused.exception)
    promoted = _run("bundles", "promote", versions[1], *files, "--why", "upgrade", "--despite-gates")
    assert promoted.exit_code == 0, promoted.output
    assert BundleStore(root).champion.bundle == versions[1]


def test_rules_of_the_champion_are_changed_without_gates(bundle_dir, tmp_path, versions):
    root, rules = tmp_path / "bundles", tmp_path / "rules.toml"
    rules.write_text("""
[[rules]]
id = "R-001"
owner = "fraud operations"
expires = 2030-01-31
when = "amount > 400"
outcome = "review"
words = "A large amount."
""")
    BundleStore(root).add(bundle_dir)
    BundleStore(root).promote(versions[0], "", "ops", "first")
    changed = _run("bundles", "promote", versions[0], "--store", root, "--rules", rules, "--why", "large amounts")
    assert changed.exit_code == 0, (changed.output, changed.exception)
    assert BundleStore(root).champion.rules
    same = _run("bundles", "promote", versions[0], "--store", root, "--rules", rules, "--why", "again")
    assert "the same rules" in str(same.exception)
    removed = _run("bundles", "promote", versions[0], "--store", root, "--no-rules", "--why", "no longer needed")
    assert (removed.exit_code, BundleStore(root).champion.rules) == (0, "")


def test_a_worse_bundle_is_stopped_by_the_gates(world, bundle_dir, tmp_path, versions, bundle):
    from training.evaluation.measures import score_file
    from training.gates import gates

    quiet = NoProgress()
    seen = score_file(transactions_file(world), world / "labels.parquet", bundle, Privacy(), quiet)
    fine = {gate.name: gate.passed for gate in gates(bundle, seen, bundle, seen)}
    assert all(fine.values()), fine
    rng = np.random.default_rng(0)

    def passed(**changed):
        scores = structs.replace(seen.scores, **changed)
        return {gate.name: gate.passed for gate in gates(bundle, structs.replace(seen, scores=scores), bundle, seen)}

    p = seen.scores.probability
    assert not passed(probability=rng.permutation(p))["quality"]
    assert not passed(probability=p**0.3)["calibration"]
    assert not passed(probability=np.clip(p * 20, 0, 1))["drift"]
    few = structs.replace(seen, fraud=np.zeros_like(seen.fraud))
    assert [gate.passed for gate in gates(bundle, few, bundle, seen)] == [False]
    all_fraud = structs.replace(seen, fraud=np.ones_like(seen.fraud))
    assert [gate.passed for gate in gates(bundle, all_fraud, bundle, seen)] == [False]
    assert (bundle_dir / MANIFEST).exists()


def test_retraining_makes_a_challenger_and_promotes_it_only_if_it_passes_the_gates(world, other_bundle_dir, tmp_path):
    root = tmp_path / "bundles"
    files = ("--transactions", world / "transactions.parquet", "--labels", world / "labels.parquet")
    refused = _run("retrain", "--store", root, *files)
    assert "no champion" in str(refused.exception)
    store = BundleStore(root)
    first = store.add(other_bundle_dir)
    store.promote(first, "", "ops", "first")
    same = _run("retrain", "--store", root, *files, "--seed", "2")
    assert "nothing new" in same.output, "the same data, recipe and seed give the same bundle"
    done = _run("retrain", "--store", root, *files, "--seed", "5", "--promote")
    assert done.exit_code in (0, 3), done.output
    champion = store.champion.bundle
    if done.exit_code == 3:
        assert champion == first
        assert store.current.challenger not in ("", champion)
    else:
        assert champion != first
