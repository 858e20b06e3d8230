"""Attacks with well-formed transactions: both stages decide them like a replay of the same file, and never silently."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest

from core.clock import FixedClock
from core.errors import StateError
from core.messages import Outcome, decode_alert, decode_decision, encode
from core.metrics import DUPLICATES
from core.privacy.masking import Privacy
from core.topics import ALERTS, DECISIONS, PROFILED, TRANSACTIONS
from models.features.spec import default_spec
from models.scorer import EVENT_LATE, ID_REUSED, Decider
from streams.checkpoints import Checkpoint
from streams.kafka.transport import OffsetRange
from streams.recovery import CheckpointLogs
from streams.stages.decider_sources import SingleDecider
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import Chunk
from tests.conftest import DAY, transactions_file
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.replay import replay, transactions_of

HISTORY = 6_000


@pytest.fixture(scope="module")
def history(world):
    """The newest transactions of the world, in order of time."""
    return list(transactions_of(transactions_file(world)))[-HISTORY:]


def _chunk(topic, values):
    return [
        SimpleNamespace(topic=topic, partition=0, offset=offset, key=b"k", value=value, timestamp=1, timestamp_type=0)
        for offset, value in enumerate(values)
    ]


def _streamed(bundle, transactions):
    """Run both stages over transactions and return the decisions and alerts."""
    now = max(t.event_time for t in transactions)
    profile, score = (
        ProfileStage(bundle.spec, Privacy(), FixedClock(now)),
        ScoreStage(bundle.spec, SingleDecider(Decider(bundle))),
    )
    records = _chunk(TRANSACTIONS, map(encode, transactions))
    for record in records:
        record.timestamp = now
    profiled = [value for output in asyncio.run(profile.process([Chunk(TRANSACTIONS, 0, records)])) for value in output.values]
    outputs = asyncio.run(score.process([Chunk(PROFILED, 0, _chunk(PROFILED, profiled))]))
    return (
        [decode_decision(value) for output in outputs if output.topic == DECISIONS for value in output.values],
        [decode_alert(value) for output in outputs if output.topic == ALERTS for value in output.values],
    )


def _replayed(bundle, transactions, folder):
    path = folder / "t.jsonl"
    path.write_bytes(b"".join(encode(t) + b"\n" for t in transactions))
    source = TransactionFile(path, load_mapping("whyflag"))
    replay(source, bundle, labels=None, out=folder, form="jsonl", privacy=Privacy(), progress=lambda n: None)
    read = (folder / "decisions.jsonl").read_bytes().splitlines(), (folder / "alerts.jsonl").read_bytes().splitlines()
    return [decode_decision(line) for line in read[0]], [decode_alert(line) for line in read[1]]


def _spree(of, days, prefix):
    """Return eight purchases within minutes, unlike anything the card has done, ``days`` before the newest event."""
    return [
        msgspec.structs.replace(
            of, transaction_id=f"{prefix}{number}", event_time=of.event_time - days * DAY + number * 60_000, amount=90_000 + number,
            merchant_id=f"far-{number}", country="BR", channel="online", device_id="stolen", lat=None, lon=None,
        )
        for number in range(8)
    ]  # fmt: skip


@pytest.mark.parametrize("days", [2, 35, 400])
def test_a_backdated_spree_is_reviewed(bundle, history, tmp_path, days):
    """When the spree was backdated by 35 days, all eight reviews once became approvals."""
    seldom = next(t for t in history if sum(one.card_id == t.card_id for one in history) < 4)
    spree = _spree(msgspec.structs.replace(seldom, event_time=history[-1].event_time), days, "spree-")
    decisions, alerts = _streamed(bundle, [*history, *spree])
    own = [decision for decision in decisions if decision.transaction_id.startswith("spree-")]
    assert len(own) == len(spree)
    for decision in own:
        assert decision.outcome is not Outcome.APPROVE
        assert EVENT_LATE in decision.reason_codes
    assert len([a for a in alerts if a.transaction.transaction_id.startswith("spree-")]) == len(spree)
    assert (decisions, alerts) == _replayed(bundle, [*history, *spree], tmp_path)


def test_an_event_within_the_lateness_is_not_late(bundle, history):
    spree = _spree(msgspec.structs.replace(history[-1], event_time=history[-1].event_time - 10 * 60_000), 0, "spree-")
    decisions, _ = _streamed(bundle, [*history, *spree])
    assert not [decision for decision in decisions if EVENT_LATE in decision.reason_codes]


def test_a_reused_id_is_decided_and_reviewed_and_an_identical_repeat_changes_nothing(bundle, history, tmp_path):
    """The same id on another card, or for half a million elsewhere, once left no trace except in a counter."""
    first = history[-1]
    dear = msgspec.structs.replace(first, amount=50_000_000, merchant_id="elsewhere")
    other_card = msgspec.structs.replace(first, card_id="another-card")
    before = DUPLICATES.labels("profile")._value.get()
    stream = [*history, dear, other_card, first, dear, other_card]
    decisions, alerts = _streamed(bundle, stream)
    assert DUPLICATES.labels("profile")._value.get() - before == 3
    own = [decision for decision in decisions if decision.transaction_id == first.transaction_id]
    assert [(d.card_id, d.amount) for d in own] == [(t.card_id, t.amount) for t in (first, dear, other_card)]
    assert own[1].outcome is not Outcome.APPROVE
    assert ID_REUSED in own[1].reason_codes
    assert ID_REUSED not in own[2].reason_codes  # the same id on another card is not a reuse
    raised = [alert for alert in alerts if alert.transaction.transaction_id == first.transaction_id]
    assert len({alert.alert_id for alert in raised}) == len(raised) == sum(d.outcome is not Outcome.APPROVE for d in own)
    assert (decisions, alerts) == _replayed(bundle, stream, tmp_path)


class _Source:
    async def bounds(self, places):
        return dict.fromkeys(places, OffsetRange(0, 10))


class _Log:
    """A checkpoint log without rows."""

    def __init__(self, checkpoint):
        self._checkpoint = checkpoint

    async def claim(self):
        pass

    async def read(self, load):
        return self._checkpoint


@pytest.mark.parametrize(
    ("written", "own", "refused"), [("", "", False), ("", "b", False), ("a", "a", False), ("a", "b", True), ("a", "", True)]
)
def test_another_pan_key_is_refused(written, own, refused):
    """With another key, every card would look unknown."""
    stage = ProfileStage(default_spec(), Privacy())
    checkpoint = Checkpoint(
        spec=stage.version, bundle="", partitions=1, positions=dict.fromkeys(stage.topics, 3), origins={}, keys=0, digest=stage.new_state().digest, clean=True,
        pan_key=written,
    )  # fmt: skip
    logs = CheckpointLogs(stage, None, lambda topic, partition: _Log(checkpoint), 1.0, own)
    logs.partitions = 1
    restoring = logs.create(0).restore(_Source(), stage.topics)
    if refused:
        with pytest.raises(StateError, match="another WHYFLAG_PAN_KEY"):
            asyncio.run(restoring)
    else:
        assert set(asyncio.run(restoring).positions.values()) == {3}
