"""
The console's pages with 100,000 open alerts and 50 analysts: time per page, on SQLite and, with ``WHYFLAG_BENCHMARK_POSTGRES``, on PostgreSQL.

Each analyst loads a page about every five seconds, as people do: pages of the queue at any depth, filters, searches, an alert's page, and verdicts.
"""

import asyncio
import os
import random
import statistics
import tempfile
import time
from pathlib import Path

import httpx
from msgspec import structs
from sqlalchemy import insert

from analyst.access.roles import Actor, Role
from analyst.listing import AlertFilter, Order
from analyst.queue import Queue, _derived, search_terms
from analyst.tables import alert_documents, alert_search, alerts, users
from analyst.web.app import create_app
from analyst.web.guard import cookie_name
from analyst.web.services import make_services
from benchmarks.setting import trained_world
from core.clock import SystemClock
from core.messages import Alert, Explanation, decode_alert, encode
from core.privacy.masking import Privacy
from core.settings import Settings
from explain.casebook import Casebook, CasesInMemory, bundle_cases
from explain.explainer import Explainer
from models.bundles.bundle import load_bundle
from training.data.mapping import load_mapping
from training.data.readers import TransactionFile
from training.replay import replay

ALERTS, ANALYSTS, SECONDS, PAUSE = 100_000, 50, 30.0, 5.0
READER = Actor("a0", Role.LEAD)


def explained_alerts(folder: Path) -> list[tuple[Alert, Explanation]]:
    """Return the last 200 alerts of a simulated world with their explanations."""
    trained_world(folder, 60_000)
    bundle, out = load_bundle(folder / "bundle"), folder / "replayed"
    source = TransactionFile(folder / "transactions.parquet", load_mapping("whyflag"))
    replay(source, bundle, labels=folder / "labels.parquet", out=out, form="jsonl", privacy=Privacy(), progress=lambda n: None)
    found = [decode_alert(line) for line in (out / "alerts.jsonl").read_bytes().splitlines()][-200:]
    explainer = Explainer(bundle, Casebook(bundle, CasesInMemory(bundle_cases(bundle))))
    return [(alert, explainer.explain(alert)) for alert in found]


def fill(queue: Queue, explained: list[tuple[Alert, Explanation]]) -> list[str]:
    """Copy explained alerts until there are 100,000, with other ids, cards, merchants and losses; return their ids."""
    rng, now = random.Random(1), SystemClock().now_ms()
    made = [
        (alert, queue._row(alert, now) | _derived(explanation), encode(explanation).decode()) for alert, explanation in explained
    ]
    rows, documents = [], []
    for number in range(ALERTS):
        alert, row, words = made[number % len(made)]
        alert_id, loss = f"al_{number:032x}", rng.randrange(100, 100_000)
        severity = queue.policy.severity(loss, "EUR")
        changes = {
            "alert_id": alert_id, "transaction_id": f"t{number}", "card_id": f"card-{rng.randrange(20_000)}", "merchant_id": f"m-{rng.randrange(2_000)}",
            "loss": loss, "severity": int(severity), "raised_at": now - rng.randrange(86_400_000), "deadline": now + rng.randrange(-3_600_000, 86_400_000),
        }  # fmt: skip
        rows.append(row | changes)
        documents.append(
            {"alert_id": alert_id, "message": encode(structs.replace(alert, alert_id=alert_id)).decode(), "explanation": words}
        )
    people = [{"name": f"a{n}", "role": Role.LEAD.value, "created_at": 0, "disabled": False} for n in range(ANALYSTS)]
    with queue.engine.begin() as connection:
        for begin in range(0, ALERTS, 5_000):
            connection.execute(insert(alerts), rows[begin : begin + 5_000])
            connection.execute(insert(alert_documents), documents[begin : begin + 5_000])
            connection.execute(insert(alert_search), [term for row in rows[begin : begin + 5_000] for term in search_terms(row)])
        connection.execute(insert(users), people)
    return [row["alert_id"] for row in rows]


async def measure(queue: Queue, ids: list[str]) -> dict[str, list[float]]:
    """Let 50 analysts work for half a minute; return the seconds of each kind of page."""
    services = make_services(queue, Settings())
    app, taken = create_app(services), dict[str, list[float]]()
    deep = {}
    for order in Order:
        page = services.listing.page(AlertFilter(order=order), READER)
        for _ in range(400):
            page = services.listing.page(AlertFilter(order=order), READER, after=page.after or "", size=200)
        deep[order] = page.after
    end = time.monotonic() + SECONDS

    async def analyst(number: int, client: httpx.AsyncClient) -> None:
        rng = random.Random(number)
        secret = await asyncio.to_thread(services.sessions.begin, f"a{number}", "benchmark")
        headers = {"cookie": f"{cookie_name(services.settings)}={secret}"}
        csrf = services.sessions.find(secret).csrf
        while time.monotonic() < end:
            await asyncio.sleep(rng.uniform(0, 2 * PAUSE))
            order = rng.choice(list(Order))
            kind, path = rng.choice(
                [
                    ("first page", f"/?order={order}"), ("deep page", f"/?order={order}&after={deep[order]}"), ("filter", f"/?severity={rng.randrange(3)}&order=loss"),
                    ("card", f"/?card=card-{rng.randrange(20_000)}"), ("search", f"/?search=t{rng.randrange(ALERTS)}"), ("alert", f"/alerts/{rng.choice(ids)}"), ("verdict", "/next"),
                ]
            )  # fmt: skip
            begin = time.monotonic()
            if kind == "verdict":
                answer = await client.post(path, data={"csrf": csrf, "query": ""}, headers=headers)
            else:
                answer = await client.get(path, headers=headers)
            assert answer.status_code in (200, 303), (kind, answer.status_code)
            taken.setdefault(kind, []).append(time.monotonic() - begin)

    transport = httpx.ASGITransport(app=app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client, asyncio.TaskGroup() as group:
        for number in range(ANALYSTS):
            group.create_task(analyst(number, client))
    return taken


def show(name: str, taken: dict[str, list[float]]) -> None:
    everything = sorted(one for times in taken.values() for one in times)
    print(f"{name}: {len(everything)} pages by {ANALYSTS} analysts in {SECONDS:.0f} s, {ALERTS:,} open alerts")
    for kind, times in [*sorted(taken.items()), ("all", everything)]:
        ordered = sorted(times)
        p99 = ordered[min(int(len(ordered) * 0.99), len(ordered) - 1)]
        print(f"  {kind:<12} n {len(times):>4}   median {statistics.median(times) * 1000:>6.1f} ms   p99 {p99 * 1000:>6.1f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        urls = {"SQLite": f"sqlite:///{folder}/queue.db"}
        if given := os.environ.pop("WHYFLAG_BENCHMARK_POSTGRES", None):
            urls["PostgreSQL"] = given
        explained = explained_alerts(Path(folder))
        for name, url in urls.items():
            queue = Queue(url, SystemClock())
            show(name, asyncio.run(measure(queue, fill(queue, explained))))
            queue.close()


if __name__ == "__main__":
    main()
