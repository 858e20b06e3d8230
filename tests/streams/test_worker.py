"""A worker that stops while its group is being rebalanced, and the size of an explainer's chunks."""

import asyncio
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from cli.operations.worker import command
from core.metrics import Program
from core.privacy.masking import Privacy
from core.settings import Settings
from core.topics import TRANSACTIONS
from models.features.spec import default_spec
from streams import worker
from streams.health import Health
from streams.operator import Operator
from streams.stages.profile import ProfileStage


@pytest.fixture
def app(monkeypatch):
    monkeypatch.setattr(worker, "_exit_failed", _raise)
    monkeypatch.setattr(worker, "_exit_later", lambda seconds: None)
    health = Health(Program.SCORE, 0)
    return worker.build_app("test", Settings(), [ProfileStage(default_spec(), Privacy())], health)


def _raise(error, *_):
    raise AssertionError(f"the process would have ended with an error: {error!r}")


def test_a_rebalance_that_ends_after_the_stop_opens_nothing(app, monkeypatch):
    async def fenced(self, *_):
        raise AssertionError("opened")

    monkeypatch.setattr(Operator, "open", fenced)

    async def stop_then_open():
        await app.on_before_shutdown.send()
        await app.open_partitions({(TRANSACTIONS, 0)}, None)

    asyncio.run(stop_then_open())


def test_an_opening_that_the_stop_interrupts_is_no_failure(app, monkeypatch):
    async def interrupted(self, *_):
        asyncio.get_running_loop().create_task(app.on_before_shutdown.send())
        await asyncio.sleep(0.05)
        raise asyncio.CancelledError

    monkeypatch.setattr(Operator, "open", interrupted)
    asyncio.run(app.open_partitions({(TRANSACTIONS, 0)}, None))


def test_an_opening_that_fails_ends_the_process(app, monkeypatch):
    async def fails(self, *_):
        raise OSError("no broker")

    monkeypatch.setattr(Operator, "open", fails)
    with pytest.raises(AssertionError, match="no broker"):
        asyncio.run(app.open_partitions({(TRANSACTIONS, 0)}, None))


@pytest.mark.parametrize(("wanted", "taken"), [("500", 50), ("20", 20)])
def test_an_explainer_takes_few_alerts_at_a_time(monkeypatch, wanted, taken):
    """It finishes its chunk before it stops, and must stop within 25 s. The live tests stop one that has a backlog."""
    built = []
    monkeypatch.setenv("WHYFLAG_MAX_POLL_RECORDS", wanted)
    monkeypatch.setattr("core.logs.set_up_logs", lambda program, settings: None)
    monkeypatch.setattr("streams.stages.explain.explain_stage", lambda settings, bundle: SimpleNamespace(ping=None))
    monkeypatch.setattr(worker, "build_app", lambda group, settings, stages, health, checks: built.append(settings))
    monkeypatch.setattr(worker, "run", lambda app: None)
    result = CliRunner().invoke(command, ["explain"])
    assert result.exit_code == 0, result.output
    assert [settings.max_poll_records for settings in built] == [taken]
