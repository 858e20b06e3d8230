"""
Fuzz test of the whole chain: each hostile record is decided, dead-lettered or an exact repeat; nothing dies, leaks or stalls.

``make fuzz`` runs it for longer, with its own seed.
"""

import asyncio
import time
from types import SimpleNamespace

import pytest

from analyst.cases import Cases
from analyst.queue import Queue
from core.clock import FixedClock, SystemClock
from core.messages import Outcome, decode_alert, decode_dead_letter, decode_decision
from core.metrics import DUPLICATES
from core.privacy.masking import Privacy
from core.topics import ALERTS, DEAD_LETTERS, DECISIONS, EXPLANATIONS, LABELS, PROFILED, TRANSACTIONS, VERDICTS
from models.scorer import EVENT_LATE, ID_REUSED, Decider
from streams.stages.decider_sources import SingleDecider
from streams.stages.explain import ExplainStage
from streams.stages.profile import ProfileStage
from streams.stages.score import ScoreStage
from streams.stages.stage import Chunk
from streams.worker import freeze_garbage_collector
from tests.conftest import GIVEN
from tests.hostile import EMAIL, NAME, PAN_FORMS, SSN, records, valid
from tests.streams.scripted import Kafka, Process

NOW = 1_750_000_000_000
COUNT = int(GIVEN.get("WHYFLAG_FUZZ_RECORDS", "3000"))
SEED = int(GIVEN.get("WHYFLAG_FUZZ_SEED", "1"))
CHUNK = 500  # records that a worker fetches at once
LEAKS = [form.encode() for form in (*PAN_FORMS, SSN, EMAIL)]
# The stalls that this guards against lasted a minute. The normal time, which `python -m benchmarks.privacy` measures, is a few
# hundredths of a second.
STALL_SECONDS = 5.0


@pytest.fixture
def slowest(monkeypatch):
    """Instrument the event loop; return a list that collects (thread CPU seconds, callback) for each callback."""
    taken: list[tuple[float, str]] = []
    run = asyncio.Handle._run

    def timed(handle):
        began = time.thread_time()
        try:
            run(handle)
        finally:
            taken.append((time.thread_time() - began, repr(handle)))

    monkeypatch.setattr(asyncio.Handle, "_run", timed)
    return taken


def _chunk(topic, values, offset):
    return [
        SimpleNamespace(
            topic=topic, partition=0, offset=offset + i, key=b"k", value=value, timestamp=NOW + 1_000, timestamp_type=1
        )
        for i, value in enumerate(values)
    ]


async def _chain(profile, score, explain, values):
    """Pass records through all stages, chunk by chunk, and return the outputs by topic."""
    made: dict[str, list[tuple[bytes, bytes]]] = {
        topic: [] for topic in (PROFILED, DECISIONS, ALERTS, EXPLANATIONS, DEAD_LETTERS)
    }

    def keep(outputs):
        own = {}
        for one in outputs:
            made[one.topic] += zip(one.keys, one.values, strict=True)
            own.setdefault(one.topic, []).extend(one.values)
        return own

    for begin in range(0, len(values), CHUNK):
        chunk = values[begin : begin + CHUNK]
        profiled = keep(await profile.process([Chunk(TRANSACTIONS, 0, _chunk(TRANSACTIONS, chunk, begin))])).get(PROFILED, [])
        await asyncio.sleep(0)
        scored = keep(await score.process([Chunk(PROFILED, 0, _chunk(PROFILED, profiled, begin))]))
        await asyncio.sleep(0)
        keep(await explain.process([Chunk(ALERTS, 0, _chunk(ALERTS, scored.get(ALERTS, []), begin))]))
        keep(await profile.process([Chunk(LABELS, 0, _chunk(LABELS, chunk[:50], begin))]))
        await asyncio.sleep(0)
        keep(await explain.process([Chunk(VERDICTS, 0, _chunk(VERDICTS, chunk[:20], begin))]))
    return made


def test_hostile_records_are_decided_or_dead_letters_and_nothing_leaks_or_stalls(bundle, explainer, tmp_path, caplog, slowest):
    queue = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    profile = ProfileStage(bundle.spec, Privacy(b"a key of enough length"), FixedClock(NOW), ceiling=5_000)
    score = ScoreStage(bundle.spec, SingleDecider(Decider(bundle)), ceiling=5_000)
    explain = ExplainStage(explainer, queue, Cases(queue))
    asyncio.run(profile.start(Process(Kafka(partitions=1))))
    asyncio.run(_chain(profile, score, explain, _valid_values(-50)))
    for state in score.states.values():
        state.origins.clear()  # the records below start again at offset 0
    freeze_garbage_collector()
    slowest.clear()
    before = DUPLICATES.labels("profile")._value.get()
    values = list(records(SEED, COUNT, NOW))
    made = asyncio.run(_chain(profile, score, explain, values))
    repeats = int(DUPLICATES.labels("profile")._value.get() - before)

    letters = [decode_dead_letter(value) for _, value in made[DEAD_LETTERS]]
    lost = [letter for letter in letters if letter.topic == TRANSACTIONS]
    assert len(values) == len(made[DECISIONS]) + len(lost) + repeats
    assert len(made[DECISIONS]) > COUNT // 4
    assert all(letter.message and len(letter.raw) <= 4_096 for letter in letters)
    alerts = [decode_alert(value) for _, value in made[ALERTS]]
    unexplained = [letter for letter in letters if letter.topic == ALERTS]
    assert len(made[EXPLANATIONS]) + len(unexplained) == len(alerts)
    assert unexplained == []

    decisions = [decode_decision(value) for _, value in made[DECISIONS]]
    doubted = [decision for decision in decisions if {EVENT_LATE, ID_REUSED}.intersection(decision.reason_codes)]
    assert doubted
    assert all(decision.outcome is not Outcome.APPROVE for decision in doubted)

    written = {topic: b"\n".join(key + b" " + value for key, value in rows) for topic, rows in made.items()}
    written["raw"] = b"\n".join(letter.raw for letter in letters)
    written["log"] = caplog.text.encode()
    queue.close()
    written["database"] = b"".join(path.read_bytes() for path in sorted(tmp_path.iterdir()))
    for where, content in written.items():
        for leak in LEAKS:
            assert leak not in content, (where, leak)
    assert NAME.encode() not in written["log"]

    stalls = [(taken, what) for taken, what in slowest if taken > STALL_SECONDS]
    assert stalls == []


def _valid_values(begin):
    import json

    return [json.dumps(valid(number, NOW + number)).encode() for number in range(begin, 0)]


def test_five_hundred_heavy_memos_do_not_stall_the_loop(bundle, slowest):
    """Forty undecodable records and five hundred valid ones with such memos once delayed a decision by a minute."""
    import json

    profile = ProfileStage(bundle.spec, Privacy(b"a key of enough length"), FixedClock(NOW))
    asyncio.run(profile.start(Process(Kafka(partitions=1))))
    for memo in ("1 " * 256, "\uff11 " * 256, "4111111111111111 " * 30, "a@b.cd " * 73, "4" * 512):
        values = [json.dumps(valid(i, NOW, memo=memo, merchant_name=memo)).encode() for i in range(CHUNK)]
        asyncio.run(profile.process([Chunk(TRANSACTIONS, 0, _chunk(TRANSACTIONS, values, 0))]))
    for raw in (b"1 " * 32_768, b"4111111111111111 " * 3_900, b"\xff" * 65_536, b"[" * 65_536, ("\uff11 " * 20_000).encode()):
        asyncio.run(profile.process([Chunk(TRANSACTIONS, 0, _chunk(TRANSACTIONS, [raw] * CHUNK, 0))]))
    assert [(taken, what) for taken, what in slowest if taken > STALL_SECONDS] == []
