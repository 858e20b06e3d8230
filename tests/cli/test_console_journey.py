"""A working day on a real stream: the demo's broker, workers and console, and an analyst in a real browser."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from tests.conftest import needs

pytestmark = pytest.mark.system


@pytest.fixture
def demo():
    """A running demo; yields the link with which the first user chooses a password, and the process."""
    command = [sys.executable, "-m", "cli.main", "demo", "--headless", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    printed: list[str] = []
    linked = threading.Event()

    def read():
        for line in process.stderr:
            printed.append(line)
            if "/invitation/" in line:
                linked.set()

    reader = threading.Thread(target=read)
    reader.start()
    assert linked.wait(240), "".join(printed)
    (link,) = re.findall(r"http://\S+/invitation/\S+", "".join(printed))
    yield link, process
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    reader.join()


def test_a_first_user_works_alerts_of_a_real_stream(demo):
    link, process = demo
    chromium = needs("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu", "--no-first-run"])
        page = browser.new_page(viewport={"width": 1366, "height": 768})
        page.set_default_timeout(90_000)
        page.goto(link)
        page.fill("input[name=password]", "correct horse battery")
        page.fill("input[name=again]", "correct horse battery")
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile(r"/$"))
        page.locator("table.queue tr[data-alert]").nth(1).wait_for()  # alerts arrive by themselves
        page.keyboard.press("n")
        page.wait_for_url("**/alerts/*")
        assert page.locator(".habits tbody tr").count() >= 5, "habits come from the archive of the stream"
        card = page.locator(".summary a.id").inner_text()
        page.wait_for_timeout(400)
        page.keyboard.press("f")
        page.wait_for_selector(".banner.undo")
        page.goto(re.sub(r"/(alerts/.*|\?.*)?$", f"/cards/{card}", page.url))
        assert page.locator(".recent tbody tr").count() >= 1
        assert page.locator("text=fraud, by admin").count() >= 1
        page.goto(re.sub(r"/cards/.*$", "/audit", page.url))
        actions = page.locator("tbody tr td:nth-child(4)").all_inner_texts()
        assert {"invitation accepted", "signed in", "claimed", "verdict"} <= set(actions)
        browser.close()
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert '"explained"' in out
