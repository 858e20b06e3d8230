"""The API: its OpenAPI document, what Schemathesis finds, and one journey through it."""

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.config import SchemathesisConfig
from schemathesis.specs.openapi.checks import ignored_auth, positive_data_acceptance

from analyst.access.roles import Permission
from analyst.web import api
from analyst.web.app import ROUTERS, create_app
from analyst.web.errors import STATUSES, status_of
from analyst.web.services import make_services
from core import errors
from core.settings import Settings
from tests.analyst.conftest import ADA, LEA, add_people, ids_of
from tests.strategies import scaled


@pytest.fixture(scope="module")
def document():
    return api.openapi_document()


def token(site, person):
    scopes = tuple(permission for permission in Permission if person.may(permission))
    return {"authorization": f"Bearer {site.services.tokens.create(person, 'a test', scopes, 1)}"}


def test_everything_that_a_page_changes_the_api_changes_too(document):
    """Each route of a page that changes something calls a method of a service; some route of the API must call it as well."""
    import ast
    import inspect

    def calls(functions):
        found = set()
        for function in functions:
            for node in ast.walk(ast.parse(inspect.getsource(function).lstrip())):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Attribute)
                    and isinstance(node.func.value, ast.Attribute)
                ):
                    found.add((node.func.value.attr, node.func.attr))
        return found

    public = {"accept", "log_in"}  # before a token can exist
    pages = calls(route.endpoint for router in ROUTERS[:-1] for route in router.routes if "POST" in route.methods)
    services = {"assignments", "verdicts", "bulks", "views", "accounts", "tokens", "proposals", "webhooks"}
    changing = {(service, method) for service, method in pages if service in services and method not in public}
    assert len(changing) >= 15
    assert changing - calls(route.endpoint for route in api.router.routes) == set()


def test_the_document_describes_every_answer(document):
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            success = [status for status in operation["responses"] if status.startswith("2")]
            assert len(success) == 1, (path, method)
            assert "401" in operation["responses"]
            if success != ["204"]:
                schema = operation["responses"][success[0]]["content"]["application/json"]["schema"]
                name = (schema.get("items") or schema)["$ref"].rpartition("/")[2]
                assert name in document["components"]["schemas"], name


def test_schemathesis_finds_no_answer_that_the_document_does_not_describe(document, tmp_path, explained, clock):
    """Schemathesis generates requests from the document, valid and invalid, and checks status, content type and schema."""
    from analyst.queue import Queue

    queue = Queue(f"sqlite:///{tmp_path}/queue.db", clock)
    for alert, explanation in explained[-5:]:
        queue.put(alert, explanation)
    services = make_services(queue, Settings())
    add_people(queue)
    headers = {"authorization": f"Bearer {services.tokens.create(ADA, 'a test', tuple(Permission), 1)}", "host": "127.0.0.1"}
    app = create_app(services)
    schema = schemathesis.openapi.from_dict(document, config=SchemathesisConfig()).exclude(path=f"{api.PREFIX}/openapi.json")
    schema.app = app
    checked = 0
    for result in schema.get_all_operations():
        operation = result.ok()
        strategy = operation.as_strategy()

        @settings(max_examples=scaled(15), suppress_health_check=list(HealthCheck), phases=[Phase.generate])
        @given(case=strategy)
        def check(case):
            # not every text is a filter, a position or a name; and
            # its check of authentication sends the headers that it wants to leave out; test_access.py tests every route without them
            case.call_and_validate(headers=headers, excluded_checks=[ignored_auth, positive_data_acceptance])

        check()
        checked += 1
    assert checked >= 35
    queue.close()


def test_a_journey_through_the_api(site, sqlite_queue):
    client, lead = site.client, token(site, LEA)
    page = client.get("/api/v1/alerts", params={"query": "order=loss"}, headers=lead).json()
    assert [one["alert_id"] for one in page["alerts"]] == ids_of(sqlite_queue)
    alert = client.post("/api/v1/alerts/next", json={"query": "order=loss"}, headers=lead).json()["alert_id"]
    assert alert == page["alerts"][0]["alert_id"]
    seen = client.get(f"/api/v1/alerts/{alert}", headers=lead).json()
    assert (seen["alert"]["claimed_by"], seen["verdicts"]) == ("lea", [])
    body = {"finding": "fraud", "version": seen["alert"]["version"], "closing_reason": "known_pattern"}
    assert client.post(f"/api/v1/alerts/{alert}/verdict", json=body, headers=lead).status_code == 201
    conflict = client.post(f"/api/v1/alerts/{alert}/verdict", json=body | {"finding": "legitimate"}, headers=lead)
    assert conflict.status_code == 409
    told = conflict.json()
    assert (told["error"]["type"], told["theirs"]["finding"], told["yours"]["finding"], told["version"]) == (
        "VerdictConflict",
        "fraud",
        "legitimate",
        1,
    )
    given = client.get(f"/api/v1/alerts/{alert}", headers=lead).json()["verdicts"][0]["number"]
    assert client.delete(f"/api/v1/alerts/{alert}/verdicts/{given}", headers=lead).status_code == 204
    preview = client.post("/api/v1/bulks/preview", json={"query": ""}, headers=lead).json()
    assert preview["alerts"] == 20
    number = client.post("/api/v1/bulks", json={"finding": "legitimate", "number": preview["number"]}, headers=lead).json()[
        "number"
    ]
    assert client.get(f"/api/v1/bulks/{number}", headers=lead).json()["bulk"]["results"] == {"done": 20}
    assert client.delete(f"/api/v1/bulks/{number}", headers=lead).status_code == 204
    card = sqlite_queue.get(alert).alert.transaction.card_id
    entity = client.get(f"/api/v1/entities/card/{card}", params={"hops": 2}, headers=lead).json()
    assert entity["links"]
    change = {"type": "add entry", "list": "block", "key": "card", "value": card, "expires_on": "2025-12-31"}
    proposed = client.post("/api/v1/proposals", json={"change": change, "reason": "r"}, headers=lead).json()["number"]
    assert client.post(f"/api/v1/proposals/{proposed}/approve", headers=lead).status_code == 403
    assert client.post(f"/api/v1/proposals/{proposed}/approve", headers=token(site, ADA)).status_code == 204
    assert client.get("/api/v1/lists", headers=lead).json()["entries"][0]["value"] == card
    assert client.get("/api/v1/report", headers=lead).json()["report"]["days"] == 30
    assert client.get("/api/v1/openapi.json", headers=lead).json()["openapi"].startswith("3.1")


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"\xff", b'{"minutes": 1e99}', b'{"minutes": "x"}', b'{"minutes": 5, "more": 1}']
)
def test_a_broken_body_is_a_clear_error(site, sqlite_queue, body):
    answer = site.client.post(
        f"/api/v1/alerts/{ids_of(sqlite_queue)[0]}/snooze",
        content=body,
        headers=token(site, LEA) | {"content-type": "application/json"},
    )
    assert answer.status_code == (400 if body == b"\xff" else 422)
    assert answer.json()["error"]["message"]


def test_every_error_of_the_domain_has_a_status():
    kinds = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.WhyflagError)]
    found = {kind.__name__: status_of(kind.__new__(kind)) for kind in kinds}
    assert found["NotFoundError"] == 404
    assert found["ConflictError"] == found["QueueError"] == 409
    assert (found["AccessError"], found["SignInError"], found["ThrottledError"]) == (403, 401, 429)
    assert found["MappingError"] == found["InputError"] == 422
    assert found["DatabaseError"] == 503
    assert set(found.values()) <= set(STATUSES.values())
