"""
Plant card numbers, social security numbers, names and e-mail addresses in every form and field, run the whole chain, and search
everything that it wrote.
"""

import contextlib
import json
import re
import sqlite3
import time

import pytest
from prometheus_client import generate_latest

from analyst.archive import Archive
from analyst.policy import QueuePolicy
from analyst.queue import Queue
from core.clock import SystemClock
from core.messages import decode_alert, decode_dead_letter
from core.metrics import Program, registry_of
from core.settings import Settings
from core.topics import LABELS, TOPICS, TRANSACTIONS, VERDICTS
from streams.kafka.clients import Observer, Sender
from streams.kafka.embedded import API_VERSION, EmbeddedBroker
from streams.relay import Relay
from tests.analyst.conftest import console
from tests.explain.test_llm import GOOD
from tests.hostile import EMAIL, NAME, PAN, PAN_FORMS, SSN, planted, valid
from tests.openai_server import OpenAIServer
from tests.workers import Worker, collect
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile

KEY = "a key of enough length"
SECRETS = (*PAN_FORMS, SSN, EMAIL)


def _found(content: bytes, secrets=SECRETS) -> list[str]:
    """Return the secrets found in some bytes, in any notation."""
    text = content.decode("utf-8", "replace")
    escaped = json.dumps(text)
    plain = re.sub(r"[^0-9A-Za-z@.]", "", text)
    hidden = [secret for secret in secrets if secret in text or json.dumps(secret)[1:-1] in escaped]
    return hidden + [PAN for _ in range(PAN in plain) if PAN in secrets]


def _everything(settings) -> dict[str, list]:
    """Return all records by topic, for every topic that whyflag writes to."""
    observer = Observer(settings, [topic.name for topic in TOPICS if topic.name not in (TRANSACTIONS, LABELS)])
    records: dict[str, list] = {}
    for record in observer.all():
        records.setdefault(record.topic, []).append(record)
    observer.close()
    return records


@pytest.mark.slow
def test_no_planted_secret_appears_in_any_output(bundle_dir, tmp_path):
    now = time.time_ns() // 1_000_000 - 86_400_000
    records = [record for _, record in planted(now)]
    records += [valid(10_000 + i, now + i, memo=f"for {NAME}", amount=900_000 + i, currency="XXX") for i in range(20)]
    labels = [
        {name: record[name] for name in ("transaction_id", "card_id", "merchant_id", "event_time")}
        | {"label_time": now + 1_000_000, "fraud": True, "source": "chargeback", "cardholder_name": NAME}
        for record in records[:200]
    ]
    database = tmp_path / "queue.db"
    with EmbeddedBroker() as broker, OpenAIServer([GOOD]) as llm:
        settings = Settings(
            kafka_bootstrap=broker.bootstrap,
            kafka_api_version=API_VERSION,
            checkpoints=False,
            pan_key=KEY,
            llm_url=llm.url,
            llm_model="local",
        )
        with (
            Worker("score", settings, bundle=bundle_dir) as score,
            Worker("explain", settings, bundle=bundle_dir, database=f"sqlite:///{database}") as explain,
            Worker("archive", settings, database=f"sqlite:///{database}") as copying,
        ):
            sender = Sender(settings, 0)
            for record in records:
                sender.send(TRANSACTIONS, str(record["card_id"]).encode(), json.dumps(record).encode())
            for label in labels:
                sender.send(LABELS, str(label["card_id"]).encode(), json.dumps(label).encode())
            for broken in (f'{{"memo": "{PAN}", "cardholder_name": "{NAME}"}}', f"{PAN} {EMAIL} {SSN}", '{"card_id": "' + PAN):
                sender.send(TRANSACTIONS, PAN.encode(), broken.encode())
            sender.close()
            deadline, written = time.monotonic() + 90, {}
            while time.monotonic() < deadline:
                written = _everything(settings)
                settled = len(written.get("decisions", [])) + len(written.get("dead-letters", []))
                explained = {record.key for record in written.get("explanations", [])}
                raised = {record.key for record in written.get("alerts", [])}
                with contextlib.closing(sqlite3.connect(database)) as opened:
                    archived = opened.execute("SELECT count(*) FROM archived_decisions").fetchone()[0]
                if settled >= len(records) + 3 and raised and raised <= explained and archived == len(written["decisions"]):
                    break
            assert settled >= len(records) + 3
            assert archived == len(written["decisions"]) > 100
            alerts = [decode_alert(record.value) for record in written["alerts"]]
            queue = Queue(f"sqlite:///{database}", SystemClock(), QueuePolicy(grace_ms=0))
            archive = Archive(f"sqlite:///{database}", SystemClock(), days=100)
            with console(queue, settings, history=archive) as site:
                lead = site("lea")
                for number, secret in enumerate(SECRETS):
                    form = {"finding": "fraud", "typology": "other", "note": f"{secret} belongs to {NAME}", "version": "0"}
                    assert lead.post(f"/alerts/{alerts[number].alert_id}/verdict", form).status_code == 303
                relay = Relay(queue, settings)
                relay.start()
                collect(settings, {VERDICTS: len(SECRETS)})
                relay.stop()
                pages = [lead.get("/").content, *(lead.get(f"/alerts/{alert.alert_id}").content for alert in alerts)]
            time.sleep(2)
            written = _everything(settings)
            metrics = [
                score.get("metrics"),
                explain.get("metrics"),
                copying.get("metrics"),
                generate_latest(registry_of(Program.CONSOLE)).decode(),
            ]
            assert all(worker.get("live") == "live\n" for worker in (score, explain, copying))
            casebook = b"".join(path.read_bytes() for path in sorted(_casebook(explain).rglob("*")) if path.is_file())
            logs = [score.printed(), explain.printed(), copying.printed()]
            prompts = json.dumps(llm.requests, ensure_ascii=False)
        queue.close()
        archive.close()

    assert len(written["verdicts"]) == len(SECRETS)
    assert llm.requests
    searched = {
        **{topic: b"\n".join((record.key or b"") + b" " + record.value for record in rows) for topic, rows in written.items()},
        "raw": b"\n".join(decode_dead_letter(record.value).raw for record in written["dead-letters"]),
        "tables": "\n".join(sqlite3.connect(database).iterdump()).encode(),
        "pages": b"\n".join(pages),
        "metrics": "\n".join(metrics).encode(),
        "casebook": casebook,
        "logs": "\n".join(logs).encode(),
        "prompts": prompts.encode(),
    }
    assert {where: _found(content) for where, content in searched.items() if _found(content)} == {}
    # names may appear where free text is kept, but never in prompts, logs, metrics or the casebook
    for where in ("prompts", "logs", "metrics", "casebook"):
        assert NAME.encode() not in searched[where], where
    for where, content in searched.items():
        assert b"cardholder_name" not in content, where


def _casebook(worker):
    from pathlib import Path

    return Path(worker.environment["WHYFLAG_CASEBOOK"])


def test_records_read_from_files_are_as_private_as_the_stream(tmp_path):
    from core.privacy.masking import Privacy
    from training.replay import transactions_of

    now = 1_750_000_000_000
    path, rejects = tmp_path / "t.jsonl", tmp_path / "rejects.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for _, record in planted(now)))
    source = TransactionFile(path, load_mapping("whyflag"), Privacy(KEY.encode()), rejects)
    read = list(transactions_of(source))
    assert len(read) > 100
    from core.messages import encode

    content = b"\n".join(map(encode, read)) + rejects.read_bytes()
    assert _found(content) == []
    assert NAME.encode() not in content
