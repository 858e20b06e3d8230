"""Webhooks: stored with the change, signed, repeated, against a real HTTP server."""

import json
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from standardwebhooks import Webhook as Verifier

from analyst.verdicts import Verdicts
from analyst.webhooks import Webhooks, post
from core.errors import AccessError, InputError, NotFoundError
from core.messages import Finding, Opinion
from tests.analyst.conftest import ADA, ANN, LEA, ids_of


class Receiver:
    """A server that stores what it receives and answers with ``status``."""

    def __init__(self):
        received, self.status = [], 200
        self.received, receiver = received, self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                received.append((dict(self.headers), self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(receiver.status)
                self.send_header("location", "http://127.0.0.1:1/")
                self.end_headers()

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receiver():
    opened = Receiver()
    yield opened
    opened.close()


@pytest.fixture
def hooks(empty_queue):
    return Webhooks(empty_queue.database, empty_queue.clock, on_loopback=True)


def test_new_alerts_and_verdicts_are_announced_once_and_signed(empty_queue, hooks, receiver, explained, clock):
    clock.now = time.time_ns() // 10**6  # the verifier refuses old timestamps
    secret = hooks.add(ADA, receiver.url, ("alert", "verdict"))
    hooks.add(ADA, f"{receiver.url}-verdicts", ("verdict",))
    alert, explanation = explained[-1]
    empty_queue.put(alert, explanation)
    empty_queue.put(alert, explanation)  # delivered twice by the stream
    Verdicts(empty_queue).give(alert.alert_id, Opinion(Finding.FRAUD, note="secret note"), ANN, 0)
    while hooks.send_due(post):
        pass
    assert len(receiver.received) == 3
    events = []
    for headers, body in receiver.received[:2]:
        events.append(Verifier(secret).verify(body, {name.lower(): value for name, value in headers.items()}))
    assert [(event["type"], event["data"]["alert_id"]) for event in events] == [
        ("alert", alert.alert_id),
        ("verdict", alert.alert_id),
    ]
    assert events[1]["data"]["finding"] == "fraud"
    assert "secret note" not in json.dumps(events)
    assert hooks.deliveries() == []


def test_a_failed_delivery_is_repeated_and_then_given_up_and_can_be_tried_again(empty_queue, hooks, receiver, explained, clock):
    hooks.add(ADA, receiver.url, ("alert",))
    receiver.status = 500
    empty_queue.put(*explained[-1])
    pauses = []
    for _ in range(12):
        if hooks.send_due(post):
            (delivery,) = hooks.deliveries()
            pauses.append(delivery.next_at - clock.now)
        clock.pass_by(6 * 3600 + 1)
    assert len(receiver.received) == 7
    assert pauses[:6] == sorted(pauses[:6])
    (delivery,) = hooks.deliveries()
    assert (delivery.state, delivery.attempts, delivery.error) == ("failed", 7, "ValueError: status 500")
    receiver.status = 200
    hooks.repeat(ADA, delivery.number)
    assert hooks.send_due(post)
    assert hooks.deliveries()[0].state == "delivered"


def test_a_redirect_is_not_followed_and_an_unreachable_host_is_a_failure(empty_queue, hooks, receiver, explained):
    hooks.add(ADA, receiver.url, ("alert",))
    hooks.add(ADA, "http://127.0.0.1:1/", ("alert",))
    receiver.status = 302
    empty_queue.put(*explained[-1])
    while hooks.send_due(post):
        pass
    assert sorted(one.error.split(":")[0] for one in hooks.deliveries()) == ["OSError", "ValueError"]


@pytest.mark.parametrize(
    "url",
    ["http://example.org/", "ftp://example.org/", "https://10.0.0.1/", "https://169.254.169.254/latest", "https://[fd00::1]/", "https://user:secret@example.org/",
     "https://", "nonsense", "https://192.168.1.1", "https://0.0.0.0/", "https://example.org/\n", "https://example.org/ x", "https://[abc", "https://x/" + "y" * 2_000],
)  # fmt: skip
def test_an_address_that_a_webhook_may_not_have_is_refused(hooks, url):
    with pytest.raises(InputError, match=r"cannot be a webhook|is not an address"):
        hooks.add(ADA, url, ("alert",))
    assert hooks.all() == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "localhost.localdomain"])
def test_a_host_name_that_leads_to_this_machine_is_not_called(host, receiver):
    with pytest.raises((OSError, InputError)) as refused:
        post(f"https://{host}:{receiver.server.server_port}/", b"{}", {}, False)
    assert not isinstance(refused.value, ConnectionError)
    assert receiver.received == []


def test_loopback_is_not_allowed_once_the_console_is_public(hooks, empty_queue, receiver):
    with pytest.raises(InputError):
        Webhooks(empty_queue.database, empty_queue.clock).add(ADA, receiver.url, ("alert",))


def test_a_slow_receiver_is_given_up_and_does_not_hold_up_the_others(empty_queue, hooks, receiver, explained, monkeypatch):
    monkeypatch.setattr("analyst.webhooks._TIMEOUT_SECONDS", 0.5)
    slow = socket.create_server(("127.0.0.1", 0))  # accepts connections and never answers
    hooks.add(ADA, f"http://127.0.0.1:{slow.getsockname()[1]}/", ("alert",))
    hooks.add(ADA, receiver.url, ("alert",))
    empty_queue.put(*explained[-1])
    while hooks.send_due(post):
        pass
    slow.close()
    assert len(receiver.received) == 1
    assert len(hooks.deliveries()) == 1


def test_only_administrators_manage_webhooks_and_removal_ends_deliveries(hooks, empty_queue, receiver, explained):
    with pytest.raises(AccessError):
        hooks.add(LEA, "https://example.org/", ("alert",))
    with pytest.raises(InputError, match="events"):
        hooks.add(ADA, "https://example.org/", ("party",))
    hooks.add(ADA, receiver.url, ("alert",))
    empty_queue.put(*explained[-1])
    (hook,) = hooks.all()
    hooks.remove(ADA, hook.number)
    assert not hooks.send_due(post)
    with pytest.raises(NotFoundError):
        hooks.remove(ADA, hook.number)


def test_webhooks_on_the_page(site, sqlite_queue, receiver, explained):
    ada = site("ada")
    page = ada.post("/webhooks", {"url": receiver.url, "events": ["alert", "verdict"]}).text
    assert "whsec_" in page
    assert "whsec_" not in ada.get("/webhooks").text
    Verdicts(sqlite_queue).give(ids_of(sqlite_queue)[0], Opinion(Finding.FRAUD), ANN, 0)
    receiver.status = 500
    site.services.webhooks.send_due(post)
    assert "ValueError: status 500" in ada.get("/webhooks").text
