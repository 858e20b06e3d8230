"""Behaviour that can only be tested on Apache Kafka itself."""

import asyncio
import os
import subprocess
import sys

import msgspec
import pytest
from kafka import KafkaAdminClient
from kafka.admin import ConfigResource, ConfigResourceType

from cli.modelling.retrain import _with_topic
from core.errors import DeliveryError, StateError
from core.messages import Disagreement, decode_transaction_struct, encode
from core.topics import DEAD_LETTERS, DECISIONS, LABELS, PROFILE_CHECKPOINTS, TOPICS, TRANSACTIONS
from models.bundles.store import BundleStore
from streams.checkpoints import Checkpoint, CheckpointLog
from streams.kafka.clients import Sender, create_topics
from streams.kafka.connection import Connection
from streams.kafka.publishing import Outputs, Publisher
from tests.workers import Worker, collect
from training.data.readers import read_labels

pytestmark = pytest.mark.system


def _whyflag(settings, *arguments):
    environment = os.environ | {"WHYFLAG_KAFKA_BOOTSTRAP": settings.kafka_bootstrap}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)], env=environment, capture_output=True, text=True, timeout=120
    )


def test_topics_are_made_once_and_never_changed(apache):
    first = _whyflag(apache, "topics", "create", "--partitions", 3)
    assert first.returncode == 0, first.stderr
    again = _whyflag(apache, "topics", "create", "--partitions", 5)
    assert "created: none" in again.stdout
    assert "differs: transactions: partitions is 3, not 5" in again.stdout
    admin = KafkaAdminClient(bootstrap_servers=apache.kafka_bootstrap)
    try:
        admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, LABELS, configs={"retention.ms": "1000"})])
        described = {topic["name"]: len(topic["partitions"]) for topic in admin.describe_topics([t.name for t in TOPICS])}
    finally:
        admin.close()
    assert described == {topic.name: 3 for topic in TOPICS}
    told = [line for line in _whyflag(apache, "topics", "create", "--partitions", 3).stdout.splitlines() if "differs" in line]
    assert told == [
        "differs: labels: retention.ms is 1000, not -1",
    ]


def test_too_high_a_replication_is_refused_with_the_brokers_reason(apache):
    refused = _whyflag(apache, "topics", "create", "--replication", 3)
    assert refused.returncode == 1
    assert "replication" in refused.stderr.lower()
    assert "Traceback" not in refused.stderr


def test_a_file_is_produced_in_order(apache, world):
    create_topics(apache, partitions=1, replication=1)
    produced = _whyflag(apache, "produce", "--transactions", world / "transactions.parquet", "--limit", 500)
    assert produced.returncode == 0, produced.stderr
    records = collect(apache, {TRANSACTIONS: 500})[TRANSACTIONS]
    times = [decode_transaction_struct(record.value).event_time for record in records]
    assert times == sorted(times)


def test_an_output_that_kafka_refuses_is_a_delivery_error(apache):
    """An output larger than any topic accepts must not count as published."""
    create_topics(apache, partitions=1, replication=1)

    async def publish(value):
        publisher = Publisher(Connection(apache.kafka_bootstrap))
        await publisher.start()
        try:
            first = await publisher.send([Outputs(DEAD_LETTERS, [b"k"], [b"before"]), Outputs(DECISIONS, [b"k"], [value])])
            behind = await publisher.send([Outputs(DECISIONS, [b"k"], [b"behind"])])
            try:
                await first
            finally:
                await asyncio.wait([behind])
                assert (behind.exception() is None) is (len(value) < 100), "nothing may be written after a failed output"
        finally:
            await publisher.stop()

    with pytest.raises(DeliveryError, match="TooLarge"):
        asyncio.run(publish(os.urandom(1_900_000)))
    asyncio.run(publish(b"small"))
    assert [record.value for record in collect(apache, {DECISIONS: 2})[DECISIONS]] == [b"small", b"behind"]


def test_disagreements_with_a_challenger_are_listed(apache, world, bundle_dir, other_bundle_dir, tmp_path):
    store = BundleStore(tmp_path / "store")
    store.promote(store.add(bundle_dir), "", "test", "first")
    challenger = store.add(other_bundle_dir)
    store.challenge(challenger)
    create_topics(apache, partitions=2, replication=1)
    with Worker("score", apache, bundle=store.root) as worker:
        produced = _whyflag(apache, "produce", "--transactions", world / "transactions.parquet", "--limit", 6000)
        assert produced.returncode == 0, produced.stderr
        collect(apache, {DECISIONS: 6000})
        metrics = worker.get("metrics")
    listed = _whyflag(apache, "bundles", "disagreements", "--json")
    assert listed.returncode == 0, listed.stderr
    found = [msgspec.json.decode(line, type=Disagreement) for line in listed.stdout.splitlines()]
    assert found
    assert {one.challenger for one in found} == {challenger}
    assert all(one.champion_outcome is not one.challenger_outcome for one in found)
    shown = _whyflag(apache, "bundles", "disagreements", "--limit", 3).stdout.splitlines()
    assert shown[0] == f"{len(found)} disagreements"
    assert len(shown) == min(3, len(found)) + 1
    assert 'whyflag_shadow_decisions_total{challenger="' in metrics


def test_a_retraining_takes_labels_from_kafka(apache, world, tmp_path, monkeypatch):
    create_topics(apache, partitions=2, replication=1)
    labels = read_labels(world / "labels.parquet")
    sender = Sender(apache, 0)
    for label in labels[:40]:
        sender.send(LABELS, label.card_id.encode(), encode(label))
    sender.send(LABELS, b"k", b"no label")
    sender.close()
    monkeypatch.setenv("WHYFLAG_KAFKA_BOOTSTRAP", apache.kafka_bootstrap)
    (tmp_path / "folder").mkdir()
    made = read_labels(_with_topic(None, tmp_path / "folder"))
    assert sorted(made, key=encode) == sorted(labels[:40], key=encode)


def test_a_former_owner_notices_a_successor_that_claimed_the_log_and_died_before_it_wrote(apache):
    """The successor wrote no record, so only the broker can reveal its claim."""
    create_topics(apache, partitions=1, replication=1)
    checkpoint = Checkpoint(spec="s", bundle="b", partitions=1, positions={}, origins={}, keys=0, digest="")

    async def run():
        first, second = (CheckpointLog(Connection(apache.kafka_bootstrap), PROFILE_CHECKPOINTS, 0) for _ in range(2))
        await first.claim()
        assert await first.read(lambda rows: None) is None
        assert not await first.still_owned()  # it has written nothing yet
        await first.write([(b"k" * 9, b"row")], checkpoint)
        assert await first.still_owned()
        assert await first.still_owned()
        await second.claim()
        await second.close()
        assert not await first.still_owned()
        await first.close()
        loaded = []
        last = await CheckpointLog(Connection(apache.kafka_bootstrap), PROFILE_CHECKPOINTS, 0).read(loaded.extend)
        return last, loaded

    last, loaded = asyncio.run(run())
    assert msgspec.structs.replace(last, lineage=0) == checkpoint
    assert loaded == [(b"k" * 9, b"row")]


def test_a_checkpoint_log_of_another_format_raises_a_state_error(apache):
    create_topics(apache, partitions=1, replication=1)
    old = Checkpoint(spec="s", bundle="b", partitions=1, positions={}, origins={}, keys=0, digest="", v=1)

    async def run():
        log = CheckpointLog(Connection(apache.kafka_bootstrap), PROFILE_CHECKPOINTS, 0)
        await log.claim()
        await log.write([], old)
        await log.close()
        await CheckpointLog(Connection(apache.kafka_bootstrap), PROFILE_CHECKPOINTS, 0).read(lambda rows: None)

    with pytest.raises(StateError, match="format 1, this version reads format 2: run `whyflag state rebuild`"):
        asyncio.run(run())
