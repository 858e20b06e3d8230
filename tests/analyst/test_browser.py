"""Journeys in a real Chromium: the keyboard, live updates, conflicts, other sites, and accessibility of every page."""

import socket
import threading
import time
from contextlib import contextmanager

import pytest
import uvicorn
from sqlalchemy import text

from analyst.access.roles import Role
from analyst.archive import Archive, Source
from analyst.queue import Queue
from analyst.web.app import create_app
from analyst.web.services import make_services
from core.clock import FixedClock, SystemClock
from core.messages import Finding
from core.privacy.masking import Privacy
from core.settings import Settings
from models.bundles.metrics import ThresholdMeasures
from tests.analyst.conftest import ADA, ANN, LEA, add_people, decide, ids_of
from tests.conftest import needs, transactions_file
from training.data.readers import read_labels
from training.replay import transactions_of

pytestmark = pytest.mark.system

PASSWORD = "correct horse battery"
SWITCHES = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run"]


@pytest.fixture(scope="module")
def chromium():
    found = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=SWITCHES)
        yield browser
        browser.close()


@pytest.fixture
def queue(tmp_path, explained):
    opened = Queue(f"sqlite:///{tmp_path}/queue.db", SystemClock())
    for alert, explanation in explained[-30:]:
        opened.put(alert, explanation)
    yield opened
    opened.close()


@contextmanager
def serving(queue, **more):
    """Run the console on a free port; yield its address and services."""
    listening = socket.create_server(("127.0.0.1", 0))
    services = make_services(queue, Settings(), **more)
    config = uvicorn.Config(create_app(services), log_level="warning", access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}", services
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


@contextmanager
def page_of(chromium, address, services, name, **options):
    """Open a page as a person; fail if the browser reports a problem."""
    from analyst.web.guard import cookie_name

    context = chromium.new_context(viewport={"width": 1366, "height": 768}, **options)
    cookie = {"name": cookie_name(services.settings), "value": services.sessions.begin(name, "in a test"), "url": address}
    context.add_cookies([cookie])
    page, problems = context.new_page(), []
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(f"{address}/")
    yield page
    context.close()
    # the pages of errors that a test asks for
    assert [one for one in problems if "409" not in one and "404" not in one] == []


def test_an_invited_user_chooses_a_password_and_signs_in_again(chromium, queue):
    with serving(queue) as (address, services):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(f"{address}/invitation/{services.accounts.first_invitation()}")
        page.fill("input[name=password]", PASSWORD)
        page.fill("input[name=again]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{address}/")
        assert page.locator("table.queue tr[data-alert]").count() == 30
        page.click("text=Sign out")
        page.wait_for_url("**/sign-in")
        page.goto(f"{address}/leads?days=7")
        page.fill("input[name=name]", "admin")
        page.fill("input[name=password]", PASSWORD)
        page.keyboard.press("Enter")
        page.wait_for_url("**/leads?days=7")
        context.close()


def test_twenty_alerts_are_cleared_without_a_mouse(chromium, queue):
    with serving(queue) as (address, services):
        add_people(queue)
        with page_of(chromium, address, services, "ann") as page:
            page.keyboard.press("n")
            for number in range(20):
                page.wait_for_url("**/alerts/*")
                here = page.url
                if number == 7:  # with a reason and a note
                    page.keyboard.press("r")
                    page.keyboard.type("customer d")
                    page.keyboard.press("Escape")
                    page.keyboard.press("o")
                    page.keyboard.type("fled the country")
                    page.keyboard.press("Escape")
                page.wait_for_timeout(400)  # no verdict is taken in the first moment of a page
                page.keyboard.press("f" if number % 2 else "l")
                page.wait_for_url(lambda url, here=here: url != here)
            page.keyboard.press("z")
            page.wait_for_selector(".past.undone")
            page.keyboard.press("q")
            page.wait_for_url(f"{address}/")
            page.keyboard.press("?")
            assert page.locator("dialog#help").is_visible()
            page.keyboard.press("Escape")
    assert sum(count for finding, count in queue.counts().items() if finding != "open") == 19
    with queue.reading() as connection:
        (message,) = connection.execute(text("SELECT message FROM verdicts WHERE message LIKE '%fled the country%'")).scalars()
    assert '"closing_reason":"customer_denied"' in message


def test_a_held_key_and_a_double_press_judge_one_alert_only(chromium, queue):
    with serving(queue) as (address, services):
        add_people(queue)
        with page_of(chromium, address, services, "ann") as page:
            page.keyboard.press("n")
            page.wait_for_url("**/alerts/*")
            page.wait_for_timeout(400)
            first = page.url
            page.keyboard.down("f")
            for _ in range(30):  # the operating system repeats a held key
                page.keyboard.down("f")
                page.wait_for_timeout(30)
            page.keyboard.up("f")
            page.wait_for_url(lambda url: url != first)
            assert queue.counts() == {"open": 29, "fraud": 1}
            second = page.url
            page.wait_for_timeout(400)
            page.keyboard.press("l")
            page.wait_for_url(lambda url: url != second)
            page.keyboard.press("l")  # at once, on a page that nobody has seen
            page.wait_for_timeout(300)
            assert queue.counts() == {"open": 28, "fraud": 1, "legitimate": 1}


def test_the_cursor_stays_with_its_alert_when_the_queue_changes(chromium, queue):
    from playwright.sync_api import expect

    with serving(queue) as (address, services):
        add_people(queue)
        with page_of(chromium, address, services, "ann") as page:
            for _ in range(5):
                page.keyboard.press("j")
            mine = page.locator("tr.at").get_attribute("data-alert")
            top = page.locator("tr.at").bounding_box()["y"]
            first = page.locator("table.queue tr[data-alert]").first.get_attribute("data-alert")
            assert mine != first
            decide(queue, first, Finding.FRAUD, name="bob")
            expect(page.locator("table.queue tr[data-alert]")).to_have_count(29, timeout=8_000)
            assert page.locator("tr.at").get_attribute("data-alert") == mine
            assert abs(page.locator("tr.at").bounding_box()["y"] - top) < 80
            below = page.locator("table.queue tr[data-alert]").nth(5).get_attribute("data-alert")
            decide(queue, mine, Finding.FRAUD, name="bob")
            expect(page.locator("table.queue tr[data-alert]")).to_have_count(28, timeout=8_000)
            assert page.locator("tr.at").get_attribute("data-alert") == below, "the next row takes its place"


def test_two_people_see_both_verdicts_and_the_second_chooses(chromium, queue):
    with serving(queue) as (address, services):
        add_people(queue)
        alert = ids_of(queue)[0]
        with page_of(chromium, address, services, "ann") as page:
            page.goto(f"{address}/alerts/{alert}")
            decide(queue, alert, Finding.LEGITIMATE, name="bob")
            page.wait_for_timeout(400)
            page.keyboard.press("f")
            page.wait_for_selector("text=Two verdicts on one alert")
            assert "bob" in page.content()
            page.wait_for_timeout(400)
            page.click("text=Give my verdict instead")
            page.wait_for_url("**given=*")
    assert queue.get(alert).finding is Finding.FRAUD


def test_pages_of_other_sites_change_nothing(chromium, queue):
    """A page of another origin posts a form and sends requests with the person's cookies."""
    from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

    alert = ids_of(queue)[0]
    with serving(queue) as (address, services):
        add_people(queue)
        sent = []

        class Attack(BaseHTTPRequestHandler):
            def do_GET(self):
                form = f'<form id=f method=post action="{address}/alerts/{alert}/verdict"><input name=finding value=fraud><input name=version value=0><input name=csrf value=x></form>'
                script = f'fetch("{address}/api/v1/alerts/{alert}/claim", {{method: "POST", mode: "no-cors", credentials: "include"}}); setTimeout(() => f.submit(), 300)'
                body = f"<html>{form}<script>{script}</script><iframe src='{address}/'></iframe></html>".encode()
                self.send_response(200)
                self.send_header("content-type", "text/html")
                self.end_headers()
                self.wfile.write(body)
                sent.append(self.path)

            def log_message(self, *arguments):
                pass

        evil = ThreadingHTTPServer(("127.0.0.1", 0), Attack)
        threading.Thread(target=evil.serve_forever, daemon=True).start()
        context = chromium.new_context()
        from analyst.web.guard import cookie_name

        context.add_cookies(
            [{"name": cookie_name(services.settings), "value": services.sessions.begin("ann", "in a test"), "url": address}]
        )
        page = context.new_page()
        for host in ("localhost", "127.0.0.1"):  # another site, and another origin of the same site
            page.goto(f"http://{host}:{evil.server_port}/")
            page.wait_for_url(f"{address}/**", timeout=8_000)
            assert page.locator("text=The request failed").count() or "sign-in" in page.url
        # DNS rebinding: a name of the attacker that leads to this machine
        page.route("**/*", lambda route: route.continue_())
        answer = context.request.get(f"{address}/", headers={"host": "rebound.example"})
        assert answer.status == 400
        evil.shutdown()
        evil.server_close()
        context.close()
    assert (queue.get(alert).finding, queue.get(alert).claimed_by) == (None, None)


# -- every page ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def full(queue, tmp_path, world):
    """A console with everything that its pages can show."""
    last = max(queued.alert.transaction.event_time for queued in queue.open_alerts(50))
    archive = Archive(f"sqlite:///{tmp_path}/archive.db", FixedClock(last), days=100)
    archive.migrate()
    past = [one for one in transactions_of(transactions_file(world)) if one.event_time <= last]
    archive.add_transactions([Source(one.event_time, 0, i) for i, one in enumerate(past)], past)
    labels = read_labels(world / "labels.parquet", Privacy())
    archive.add_labels([Source(one.label_time, 0, i) for i, one in enumerate(labels)], labels)
    thresholds = tuple(
        ThresholdMeasures(value, alerts, 0.6, recall, 0.5) for value, alerts, recall in ((0.9, 8.0, 0.3), (0.5, 30.0, 0.6))
    )
    with serving(queue, history=archive, what_if=lambda: thresholds) as (address, services):
        add_people(queue)
        ids = ids_of(queue)
        for number, alert in enumerate(ids[:8]):
            decide(queue, alert, list(Finding)[number % 3], name=("ann", "bob")[number % 2], note="the customer called")
        services.assignments.claim(ids[9], ANN)
        from analyst.proposals import AddEntry, ListKey, ListName

        card = queue.get(ids[10]).alert.transaction.card_id
        services.proposals.approve(
            LEA, services.proposals.propose(ANN, AddEntry(ListName.BLOCK, ListKey.CARD, card, "2027-12-31"), "reported stolen")
        )
        services.proposals.propose(ANN, AddEntry(ListName.ALLOW, ListKey.MERCHANT, "m-1", "2027-12-31"), "our own shop")
        services.webhooks.add(ADA, "https://hooks.example.org/whyflag", ("alert",))
        services.accounts.invite(ADA, "carol", Role.ANALYST)
        yield address, services, ids
    archive.close()


def pages(services, ids):
    transaction = services.queue.get(ids[10]).alert.transaction
    found = {
        "queue": "/", "queue-grouped": "/?by_card=true&outcome=decline", "alert": f"/alerts/{ids[10]}", "judged": f"/alerts/{ids[0]}", "card": f"/cards/{transaction.card_id}?hops=2",
        "merchant": f"/merchants/{transaction.merchant_id}?hops=2", "lists": "/lists", "leads": "/leads", "audit": "/audit", "users": "/users", "webhooks": "/webhooks", "account": "/account",
        "bulk": "/bulk?order=loss", "error": "/alerts/al_none",
    }  # fmt: skip
    return found | ({"device": f"/devices/{transaction.device_id}"} if transaction.device_id else {})


@pytest.mark.parametrize(("scheme", "width"), [("light", 1366), ("dark", 1366), ("light", 400)])
def test_every_page_passes_axe_and_fits_its_window(chromium, full, scheme, width):
    """WCAG 2.2 AA, as far as axe can see; no page scrolls sideways, only wide tables do."""
    from axe_playwright_python.sync_playwright import Axe

    address, services, ids = full
    rules = {"runOnly": {"type": "tag", "values": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}}
    found = {}
    with page_of(chromium, address, services, "ada", color_scheme=scheme) as page:
        page.set_viewport_size({"width": width, "height": 800})
        for name, path in pages(services, ids).items():
            page.goto(f"{address}{path}")
            page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
            results = Axe().run(page, options=rules)
            if results.violations_count:
                found[name] = [
                    (one["id"], [node["html"][:120] for node in one["nodes"][:3]]) for one in results.response["violations"]
                ]
            wide = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
            if wide > 0:
                found[f"{name}, width"] = wide
    assert found == {}


@pytest.mark.parametrize("language", ["en", "de", "es"])
def test_what_a_verdict_needs_is_on_the_first_screen_in_each_language(chromium, full, language):
    address, services, ids = full
    with page_of(chromium, address, services, "ann") as page:
        for alert in ids[9:15]:
            page.goto(f"{address}/alerts/{alert}?language={language}")
            bottoms = [page.locator(f".{name}").bounding_box() for name in ("decide-words", "decide-reasons", "decide-past")]
            assert page.locator(".verdict .buttons").bounding_box()["y"] < 400
            assert max(box["y"] + box["height"] for box in bottoms) < 860
