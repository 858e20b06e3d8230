"""Queues with alerts, people, and browsers that are signed in."""

import shutil
from contextlib import contextmanager

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from analyst.access.roles import Actor, Role
from analyst.queue import Queue
from analyst.tables import metadata, users
from analyst.verdicts import Outbox, Verdicts
from analyst.web.app import create_app
from analyst.web.guard import cookie_name
from analyst.web.services import make_services
from core.messages import Opinion
from core.settings import Settings

BASE = "http://127.0.0.1"
ANN, BOB = Actor("ann", Role.ANALYST), Actor("bob", Role.ANALYST)
LEA, LEO = Actor("lea", Role.LEAD), Actor("leo", Role.LEAD)
ADA, AUDREY = Actor("ada", Role.ADMIN), Actor("audrey", Role.AUDITOR)
PEOPLE = (ANN, BOB, LEA, LEO, ADA, AUDREY)


class HandClock:
    """A clock that a test moves by hand; it advances by 1 ms whenever it is read."""

    def __init__(self, now: int = 1_760_000_000_000) -> None:
        self.now = now

    def now_ms(self) -> int:
        self.now += 1
        return self.now

    def pass_by(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


@pytest.fixture
def clock():
    return HandClock()


@pytest.fixture(scope="session")
def templates(tmp_path_factory, explained):
    """SQLite databases that tests copy, because migrating and filling one takes most of a second: empty, with 12 and with 20 alerts."""
    folder, found = tmp_path_factory.mktemp("templates"), {}
    for count in (0, 12, 20):
        found[count] = folder / f"{count}.db"
        opened = Queue(f"sqlite:///{found[count]}", HandClock())
        for alert, explanation in explained[len(explained) - count :]:
            opened.put(alert, explanation)
        opened.close()
    return found


def copied(template, clock, folder):
    """Open a copy of a template, at a time after its alerts were raised."""
    shutil.copy(template, folder / "queue.db")
    clock.pass_by(1)
    return Queue(f"sqlite:///{folder}/queue.db", clock)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.system)])
def database_url(request, tmp_path):
    """URL of an empty database: SQLite, and a real PostgreSQL."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/queue.db"
        return
    url = request.getfixturevalue("postgres")
    yield url
    opened = Queue(url, HandClock())
    with opened.engine.begin() as connection:
        for table in metadata.tables:
            connection.execute(text(f"DELETE FROM {table}"))
    opened.close()


@pytest.fixture
def empty_queue(database_url, clock, templates, tmp_path):
    """An empty queue on each database."""
    opened = copied(templates[0], clock, tmp_path) if "sqlite" in database_url else Queue(database_url, clock)
    yield opened
    opened.close()


@pytest.fixture
def queue(database_url, clock, templates, tmp_path, explained):
    """A queue with 12 alerts on each database."""
    opened = copied(templates[12], clock, tmp_path) if "sqlite" in database_url else Queue(database_url, clock)
    for alert, explanation in [] if "sqlite" in database_url else explained[-12:]:
        opened.put(alert, explanation)
    yield opened
    opened.close()


@pytest.fixture
def sqlite_queue(tmp_path, templates, clock):
    """A queue with 20 alerts on SQLite, for tests of what is above the database."""
    opened = copied(templates[20], clock, tmp_path)
    yield opened
    opened.close()


def ids_of(queue, limit=50):
    """IDs of the open alerts, highest loss first."""
    return [queued.alert.alert_id for queued in queue.open_alerts(limit)]


def decide(queue, alert_id, finding, name="ann", typology=None, note=None):
    """Give a verdict on the present version of an alert, as a lead, and let it leave; return the message."""
    version = queue.required(alert_id).version
    given = Verdicts(queue).give(alert_id, Opinion(finding, typology, None, note), Actor(name, Role.LEAD), version)
    Outbox(queue.database, queue.clock).acknowledged([given.number])
    return given.verdict


def add_people(queue, people=PEOPLE):
    with queue.engine.begin() as connection:
        for person in people:
            row = {"name": person.name, "role": person.role.value, "created_at": 0, "disabled": False}
            connection.execute(users.insert().values(row))


class Browser:
    """A person's browser: sends the session's cookie, and the session's secret with every form."""

    def __init__(self, client: TestClient, services, name: str) -> None:
        self.client, self.name = client, name
        secret = services.sessions.begin(name, "in a test")
        self.headers = {"cookie": f"{cookie_name(services.settings)}={secret}"}
        self.csrf = services.sessions.find(secret).csrf

    def get(self, path: str, **headers):
        return self.client.get(path, headers=self.headers | headers, follow_redirects=False)

    def post(self, path: str, data=None, **headers):
        given = {"csrf": self.csrf} | (data or {})
        return self.client.post(path, data=given, headers=self.headers | headers, follow_redirects=False)


@contextmanager
def console(queue, settings=None, **more):
    """Run the console on a queue with everybody in ``PEOPLE``; yield a function that returns a person's browser."""
    services = make_services(queue, settings or Settings(), **more)
    add_people(queue)
    with TestClient(create_app(services), base_url=BASE) as client:

        def browser(name: str = "ann") -> Browser:
            return Browser(client, services, name)

        browser.client, browser.services = client, services
        yield browser


@pytest.fixture
def site(sqlite_queue):
    """A console on 20 alerts."""
    with console(sqlite_queue) as browser:
        yield browser
