"""Log-in, sessions, tokens, the proxy's header, and which route each role may use."""

import threading

import pytest
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from msgspec import structs
from sqlalchemy import select, update

from analyst.access.accounts import Accounts
from analyst.access.roles import PERMISSIONS, Permission, Role
from analyst.access.sessions import Sessions, Tokens
from analyst.access.throttle import Throttle
from analyst.assignments import Assignments
from analyst.listing import AlertFilter
from analyst.tables import invitations, sessions, tokens, users
from analyst.verdicts import Verdicts
from analyst.web.app import ROUTERS, create_app
from analyst.web.guard import LARGEST_BODY, Allowed, check_exposure, local_target
from analyst.web.services import make_services
from core.errors import AccessError, ConflictError, InputError, SettingsError, SignInError, ThrottledError
from core.messages import Finding, Opinion
from core.settings import Settings
from tests.analyst.conftest import ADA, ANN, BASE, BOB, LEA, PEOPLE, add_people, console, ids_of

PASSWORD = "correct horse battery"


@pytest.fixture
def accounts(empty_queue):
    return Accounts(empty_queue.database, empty_queue.clock, Throttle(empty_queue.database, empty_queue.clock))


def permission_of(route):
    """Return the permission that a route needs; None for a public route."""
    return next((one.call.permission for one in route.dependant.dependencies if isinstance(one.call, Allowed)), None)


def routes():
    return [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


# -- accounts ------------------------------------------------------------------------------------------------------------------


def test_the_first_start_gives_a_link_that_works_once(accounts, empty_queue):
    first, second = accounts.first_invitation(), accounts.first_invitation()  # two consoles start
    assert accounts.accept(second, PASSWORD).role is Role.ADMIN
    for used in (first, second):
        with pytest.raises(SignInError):
            accounts.accept(used, PASSWORD)
    assert accounts.first_invitation() is None
    assert accounts.log_in("admin", PASSWORD, "a").name == "admin"
    with empty_queue.reading() as connection:
        (stored,) = connection.execute(select(users.c.password)).scalars()
    assert stored.startswith("$argon2id$")


def test_an_invitation_expires_after_a_day_and_its_secret_is_not_stored(accounts, empty_queue, clock):
    secret = accounts.invite(ADA, "carol", Role.ANALYST)
    with empty_queue.reading() as connection:
        assert secret not in str(connection.execute(select(invitations)).all())
    clock.pass_by(24 * 3600 + 1)
    with pytest.raises(SignInError, match="expired"):
        accounts.accept(secret, PASSWORD)


@pytest.mark.parametrize("password", ["", "short", "x" * 11, "x" * 257])
def test_a_password_has_a_sensible_length(accounts, password):
    with pytest.raises(InputError, match="12 to 256"):
        accounts.accept(accounts.invite(ADA, "carol", Role.ANALYST), password)


@pytest.mark.parametrize("name", ["", "a b", "-x", "x" * 65, "a\nb", "<b>", "é"])
def test_a_user_name_is_plain(accounts, name):
    with pytest.raises(InputError):
        accounts.invite(ADA, name, Role.ANALYST)


def test_wrong_passwords_and_unknown_names_look_alike_and_slow_down(accounts, clock):
    accounts.accept(accounts.invite(ADA, "carol", Role.ANALYST), PASSWORD)
    for name in ("carol", "nobody"):
        for _ in range(5):
            with pytest.raises(SignInError, match="the name or the password is wrong"):
                accounts.log_in(name, "wrong password", "host")
        with pytest.raises(ThrottledError, match="try again in 1 s"):
            accounts.log_in(name, PASSWORD, "host")
    assert accounts.log_in("carol", PASSWORD, "another host").name == "carol", "nobody can lock her out from elsewhere"
    clock.pass_by(61)
    assert accounts.log_in("carol", PASSWORD, "host").name == "carol"


def test_many_wrong_passwords_at_once_are_all_counted(accounts):
    accounts.accept(accounts.invite(ADA, "carol", Role.ANALYST), PASSWORD)
    results = []

    def guess():
        try:
            accounts.log_in("carol", "wrong password", "host")
        except (SignInError, ThrottledError) as error:
            results.append(type(error))

    threads = [threading.Thread(target=guess) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(SignInError) == 5
    assert results.count(ThrottledError) == 15


def test_an_earlier_invitation_does_not_bring_a_disabled_user_back(accounts):
    secret = accounts.invite(ADA, "carol", Role.LEAD)
    accounts.accept(accounts.invite(ADA, "carol", Role.LEAD), PASSWORD)
    pending = accounts.invite(ADA, "carol", Role.LEAD)
    accounts.change(ADA, "carol", Role.ANALYST, disabled=True)
    for one in (secret, pending):
        with pytest.raises(SignInError):
            accounts.accept(one, PASSWORD)
    assert accounts.get("carol").disabled


def test_a_limited_administrator_cannot_give_a_role_with_more_than_the_own_permissions(accounts):
    limited = structs.replace(
        ADA, limited_to=frozenset({Permission.ADMINISTER, Permission.READ, Permission.OWN, Permission.AUDIT})
    )
    accounts.add(limited, "quiet", Role.AUDITOR)
    for act in (
        lambda: accounts.invite(limited, "eve", Role.ADMIN),
        lambda: accounts.change(limited, "quiet", Role.ADMIN, False),
    ):
        with pytest.raises(AccessError):
            act()


def test_a_disabled_user_loses_password_session_and_token(accounts, empty_queue):
    accounts.accept(accounts.invite(ADA, "carol", Role.LEAD), PASSWORD)
    held, given = Sessions(empty_queue.database, empty_queue.clock, Settings()), Tokens(empty_queue.database, empty_queue.clock)
    secret = held.begin("carol", "in a test")
    token = given.create(held.find(secret).actor, "script", (Permission.READ,), 1)
    accounts.change(ADA, "carol", Role.LEAD, disabled=True)
    assert held.find(secret) is None
    with pytest.raises(SignInError):
        given.find(token)
    with pytest.raises(SignInError):
        accounts.log_in("carol", PASSWORD, "host")


def test_nobody_changes_their_own_role_and_only_administrators_change_others(accounts):
    accounts.add(ADA, "carol", Role.ANALYST)
    with pytest.raises(ConflictError):
        accounts.change(ADA, "ada", Role.ADMIN, disabled=False)
    for act in (
        lambda: accounts.change(LEA, "carol", Role.ADMIN, False),
        lambda: accounts.invite(LEA, "eve", Role.ADMIN),
        lambda: accounts.add(ANN, "eve", Role.ADMIN),
    ):
        with pytest.raises(AccessError):
            act()


def test_sessions_end_when_idle_and_after_a_day_of_work(empty_queue, clock):
    add_people(empty_queue)
    held = Sessions(empty_queue.database, clock, Settings(session_hours=10, session_idle_minutes=30))
    secret = held.begin("ann", "in a test")
    for _ in range(19):
        clock.pass_by(29 * 60)
        assert held.find(secret) is not None
    clock.pass_by(31 * 60)
    assert held.find(secret) is None, "idle"
    secret = held.begin("ann", "in a test")
    for _ in range(21):
        clock.pass_by(29 * 60)
        found = held.find(secret)
    assert found is None, "ten hours are over"
    with empty_queue.reading() as connection:
        assert secret not in str(connection.execute(select(sessions)).all())


def test_requests_that_a_page_makes_by_itself_do_not_keep_a_session_alive(empty_queue, clock):
    add_people(empty_queue)
    held = Sessions(empty_queue.database, clock, Settings(session_idle_minutes=30))
    secret = held.begin("ann", "in a test")
    for _ in range(29):
        clock.pass_by(60)
        assert held.find(secret, by_hand=False) is not None
    clock.pass_by(120)
    assert held.find(secret) is None


def test_a_token_does_only_what_its_scopes_and_its_owner_allow(empty_queue, clock):
    add_people(empty_queue)
    given = Tokens(empty_queue.database, clock)
    reading = given.find(given.create(LEA, "reader", (Permission.READ,), 1))
    assert reading.permissions == {Permission.READ}
    own = given.find(given.create(LEA, "own", (Permission.OWN,), 1))
    with pytest.raises(AccessError, match="cannot create tokens"):
        given.create(own, "for ever", (Permission.OWN,), 366)
    with pytest.raises(AccessError):
        given.create(ANN, "too much", (Permission.LEAD,), 1)
    with pytest.raises(AccessError):
        given.create(reading, "more", (Permission.READ, Permission.LEAD), 1)
    secret = given.create(LEA, "lead", (Permission.LEAD,), 1)
    with empty_queue.engine.begin() as connection:
        assert secret not in str(connection.execute(select(tokens)).all())
        connection.execute(update(users).where(users.c.name == "lea").values(role=Role.AUDITOR.value))
    assert given.find(secret).permissions == frozenset(), "the owner's role has changed"
    clock.pass_by(24 * 3600)
    for wrong in (secret, "", "whyflag_", "whyflag_" + "x" * 43, "\0"):
        with pytest.raises(SignInError):
            given.find(wrong)


# -- routes by role ------------------------------------------------------------------------------------------------------------

PUBLIC = {
    ("GET", "/sign-in"), ("POST", "/sign-in"), ("GET", "/sign-in/provider"), ("GET", "/sign-in/provider/callback"),
    ("GET", "/invitation/{secret}"), ("POST", "/invitation/{secret}"),
}  # fmt: skip


def test_only_the_log_in_pages_are_public(site):
    assert {(method, route.path) for route in routes() for method in route.methods if permission_of(route) is None} == PUBLIC
    assert site.client.get("/").url.path == "/sign-in"


FORMS = {
    "/views": {"name": "v"}, "/bulk": {"finding": "fraud", "number": "99"}, "/alerts/{alert_id}/undo": {"number": "1"}, "/alerts/{alert_id}/verdict": {"finding": "fraud", "version": "9"}, "/alerts/{alert_id}/snooze": {"minutes": "5"},
    "/lists/add": {"list_name": "block", "key": "card", "value": "c", "expires_on": "2025-12-31", "reason": "r"}, "/lists/remove": {"list_name": "block", "key": "card", "value": "c", "reason": "r"},
    "/lists/steps": {"toml": "x", "reason": "r"}, "/users/invite": {"name": "x", "role": "analyst"}, "/users/add": {"name": "y", "role": "analyst"}, "/users/{name}/change": {"role": "analyst"},
    "/webhooks": {"url": "https://x.example", "events": "alert"}, "/account/tokens": {"label": "l", "scopes": "read"},
}  # fmt: skip
VALUES = {"alert_id": "al_none", "value": "c", "number": "99", "name": "nobody", "table": "backlog", "kind": "card"}


def filled(path):
    for name, value in VALUES.items():
        path = path.replace(f"{{{name}}}", value).replace(f"{{{name}:path}}", value)
    return path


def sent(browser, method, path, route):
    if route.path.startswith("/api/"):
        return browser.client.request(
            method, path, headers=browser.headers | {"x-csrf-token": browser.csrf}, json={}, follow_redirects=False
        )
    return browser.get(path) if method == "GET" else browser.post(path, FORMS.get(route.path))


def test_every_route_refuses_every_role_without_its_permission_and_lets_the_others_in(site):
    """A refusal for lack of permission is a 403; with the permission, the route answers as its (unknown) object requires."""
    checked = 0
    for route in routes():
        permission = permission_of(route)
        if permission is None or route.path in ("/events", "/sign-out"):
            continue
        for method in route.methods:
            for person in PEOPLE:
                answer = sent(site(person.name), method, filled(route.path), route)
                allowed = permission in PERMISSIONS[person.role]
                assert (answer.status_code != 403) == allowed, (
                    person.name,
                    method,
                    route.path,
                    answer.status_code,
                    answer.text[:300],
                )
                assert answer.status_code < 500, (method, route.path)
                checked += 1
    assert checked > 300


def test_every_route_asks_strangers_to_sign_in(site):
    for route in routes():
        if permission_of(route) is None:
            continue
        for method in route.methods:
            answer = site.client.request(method, filled(route.path), follow_redirects=False)
            if route.path.startswith("/api/"):
                assert answer.status_code == 401, route.path
            else:
                assert (answer.status_code, answer.headers["location"].startswith("/sign-in")) == (303, True), route.path


def test_every_change_needs_the_sessions_own_secret(site):
    ann, bob = site("ada"), site("lea")
    for route in routes():
        if permission_of(route) is None or "GET" in route.methods:
            continue
        path, method = filled(route.path), next(iter(route.methods))
        for headers in (
            {},
            {"x-csrf-token": ""},
            {"x-csrf-token": bob.csrf},
            {"x-csrf-token": ann.csrf, "origin": "https://evil.example"},
            {"x-csrf-token": ann.csrf, "sec-fetch-site": "cross-site"},
        ):
            answer = site.client.request(method, path, headers=ann.headers | headers, follow_redirects=False)
            assert answer.status_code == 403, (path, headers)


def test_nobody_changes_what_is_somebody_elses(site, sqlite_queue):
    alert = ids_of(sqlite_queue)[0]
    view = site.services.views.save(ANN, "mine", AlertFilter(), shared=False)
    site.services.tokens.create(ANN, "mine", (Permission.READ,), 1)
    token = site.services.tokens.of("ann")[0].number
    Assignments(sqlite_queue).claim(alert, ANN)
    bob = site("bob")
    assert bob.post(f"/views/{view}/delete").status_code == 404
    assert bob.post(f"/account/tokens/{token}/revoke").status_code == 404
    assert bob.post(f"/alerts/{alert}/release").status_code == 409
    Verdicts(sqlite_queue).give(alert, Opinion(Finding.FRAUD), ANN, 0)
    (given,) = Verdicts(sqlite_queue).of(alert)
    assert bob.post(f"/alerts/{alert}/undo", {"number": str(given.number)}).status_code == 403
    assert sqlite_queue.get(alert).finding is Finding.FRAUD


def test_a_read_token_changes_nothing_through_the_api(site, sqlite_queue):
    secret = site.services.tokens.create(ADA, "reader", (Permission.READ,), 1)
    headers = {"authorization": f"Bearer {secret}"}
    bodies = {"/tokens": {"label": "l", "scopes": ["read"], "days": 1}, "/views": {"name": "v", "query": ""}}
    for route in routes():
        if not route.path.startswith("/api/") or "GET" in route.methods:
            continue
        answer = site.client.request(
            next(iter(route.methods)),
            filled(route.path),
            headers=headers,
            json=bodies.get(route.path.removeprefix("/api/v1"), {}),
        )
        assert answer.status_code == 403, (route.path, answer.status_code)
    assert site.client.get("/api/v1/alerts", headers=headers).status_code == 200
    assert site.client.get("/", headers=headers, follow_redirects=False).status_code == 401, "pages take no tokens"


# -- log-in over HTTP ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def door(sqlite_queue):
    """A console whose only user, carol, has a password."""
    services = make_services(sqlite_queue, Settings())
    services.accounts.accept(services.accounts.invite(ADA, "carol", Role.ANALYST), PASSWORD)
    with TestClient(create_app(services), base_url=BASE) as client:
        yield client


def sign_in(client, **changes):
    return client.post(
        "/sign-in", data={"name": "carol", "password": PASSWORD, "target": "/?order=loss"} | changes, follow_redirects=False
    )


def test_signing_in_leads_to_the_wanted_page_with_a_cookie_that_scripts_cannot_read(door):
    asked = door.get("/?order=loss", follow_redirects=False)
    assert asked.headers["location"] == "/sign-in?target=%2F%3Forder%3Dloss"
    answer = sign_in(door)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?order=loss")
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "carol" in door.get("/").text
    door.post(
        "/sign-out",
        data={"csrf": door.get("/account").text.split('name="csrf" value="')[1].split('"')[0]},
        follow_redirects=False,
    )
    assert door.get("/", follow_redirects=False).status_code == 303


def test_a_cookie_that_was_planted_before_the_log_in_is_worth_nothing_afterwards(door):
    planted = "attackers-own-value"
    door.cookies.set("whyflag_session", planted)
    answer = sign_in(door)
    given = answer.cookies["whyflag_session"]
    assert given != planted
    door.cookies.clear()
    assert door.get("/", headers={"cookie": f"whyflag_session={planted}"}, follow_redirects=False).status_code == 303
    again = sign_in(door, **{})
    assert again.cookies["whyflag_session"] != given


@pytest.mark.parametrize(
    "target", ["//evil.example", "https://evil.example", "/\\evil.example", "\\evil", "javascript:alert(1)", "/a\r\nx: y"]
)
def test_a_log_in_never_leads_to_another_site(door, target):
    assert sign_in(door, target=target).headers["location"] == "/"
    assert local_target(target) == "/"


def test_a_wrong_password_shows_the_form_again_and_other_sites_cannot_sign_in(door):
    answer = sign_in(door, password="wrong password")
    assert answer.status_code == 401
    assert "the name or the password is wrong" in answer.text
    refused = door.post(
        "/sign-in",
        data={"name": "carol", "password": PASSWORD},
        headers={"origin": "https://evil.example"},
        follow_redirects=False,
    )
    assert refused.status_code == 403


def test_an_invitation_is_accepted_in_the_browser(door, sqlite_queue):
    accounts = Accounts(sqlite_queue.database, sqlite_queue.clock, Throttle(sqlite_queue.database, sqlite_queue.clock))
    path = f"/invitation/{accounts.invite(ADA, 'dave', Role.LEAD)}"
    assert "dave" in door.get(path).text
    assert door.post(path, data={"password": PASSWORD, "again": "other"}).status_code == 422
    answer = door.post(path, data={"password": PASSWORD, "again": PASSWORD}, follow_redirects=False)
    assert answer.status_code == 303
    assert "dave" in door.get("/leads").text
    assert door.get(path).status_code == 401


# -- exposure ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        Settings(console_host="0.0.0.0"), Settings(proxy_header="x-user"), Settings(oidc_issuer="https://id.example"),
        Settings(oidc_issuer="https://id.example", console_url="https://fraud.example", oidc_client_id="c"),
    ],
)  # fmt: skip
def test_settings_that_would_expose_the_console_are_refused(settings):
    with pytest.raises(SettingsError, match="WHYFLAG_"):
        check_exposure(settings)


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "127.0.0.1.evil.example",
        "localhost.evil.example:80",
        "0.0.0.0",
        "",
        "127.0.0.1@evil.example",
        "fraud.example",
    ],
)
def test_other_host_names_are_refused(site, host):
    answer = site.client.get("/sign-in", headers={"host": host})
    assert answer.status_code == 400


@pytest.mark.parametrize("host", ["127.0.0.1:8080", "localhost", "LOCALHOST:9", "[::1]:8080"])
def test_loopback_names_are_accepted_on_loopback(site, host):
    assert site.client.get("/sign-in", headers={"host": host}).status_code == 200


def test_off_loopback_only_the_public_host_name_is_accepted_and_cookies_are_for_https(sqlite_queue):
    settings = Settings(console_host="0.0.0.0", console_url="https://fraud.example")
    with console(sqlite_queue, settings) as site:
        for host, status in (
            ("fraud.example", 200),
            ("FRAUD.example", 200),
            ("127.0.0.1", 400),
            ("localhost", 400),
            ("fraud.example:444", 400),
        ):
            assert site.client.get("/sign-in", headers={"host": host}).status_code == status, host
        answer = site().get("/", host="fraud.example")
        assert answer.status_code == 200
        assert "max-age" in answer.headers["strict-transport-security"]
        assert next(iter(site().headers.values())).startswith("__Host-whyflag=")


def test_every_answer_has_the_security_headers(site):
    for answer in (
        site().get("/"),
        site().get("/alerts/al_none"),
        site.client.get("/sign-in"),
        site.client.get("/", headers={"host": "evil"}),
        site.client.get("/api/v1/alerts"),
    ):
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert (answer.headers["cache-control"], answer.headers["x-content-type-options"]) == ("no-store", "nosniff")


def test_a_failure_of_the_console_is_an_error_page_with_the_headers_and_without_details(site, monkeypatch):
    monkeypatch.setattr(type(site.services.listing), "page", lambda *_, **__: 1 / 0)
    answer = site().get("/")
    assert answer.status_code == 500
    assert "ZeroDivision" not in answer.text
    assert answer.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path", [f"/bulk/{10**30}", f"/audit?before={10**30}", "/sign-in/provider/callback?state=%C3%A9", "/bulk/-1"]
)
def test_odd_numbers_and_letters_are_refused_clearly(site, path):
    assert site("ada").get(path).status_code in (401, 422)


def test_links_to_other_languages_stay_on_the_page(site):
    page = site().client.get("//evil.example/x", headers=site().headers).text
    assert 'href="//' not in page


def test_large_bodies_are_refused_with_and_without_a_length(site):
    ann = site()
    assert ann.post("/views", {"name": "x" * LARGEST_BODY}).status_code == 413

    def endless():
        for _ in range(LARGEST_BODY // 1000 + 5):
            yield b"x" * 1000

    headers = ann.headers | {"content-type": "application/x-www-form-urlencoded", "x-csrf-token": ann.csrf}
    answer = site.client.post("/views", content=endless(), headers=headers)
    assert answer.status_code >= 400
    assert site.services.views.all(ANN) == []


def test_metrics_and_probes_are_not_on_the_public_port(site):
    for path in ("/metrics", "/live", "/ready", "/docs", "/openapi.json"):
        assert site("ada").get(path).status_code == 404


# -- the proxy -----------------------------------------------------------------------------------------------------------------

SECRET = "a secret of the proxy"


@pytest.fixture
def proxied(sqlite_queue):
    with console(sqlite_queue, Settings(proxy_header="x-user", proxy_secret=SECRET)) as site:
        yield site.client


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([("x-user", "ann"), ("x-proxy-secret", SECRET)], 200),
        ([("x-user", "ann")], 401),
        ([("x-user", "ann"), ("x-proxy-secret", "wrong")], 401),
        ([("x-user", "ann"), ("x-proxy-secret", SECRET), ("x-proxy-secret", SECRET)], 401),
        ([("x-user", "ann"), ("x-user", "lea"), ("x-proxy-secret", SECRET)], 401),
        ([("x-user", "a" * 65), ("x-proxy-secret", SECRET)], 401),
        ([("x-user", ""), ("x-proxy-secret", SECRET)], 401),
        ([("x-user", "stranger"), ("x-proxy-secret", SECRET)], 401),
        ([("x-proxy-secret", SECRET)], 303),
        ([], 303),
    ],
)
def test_a_proxy_names_the_user_only_with_its_secret(proxied, headers, status):
    answer = proxied.get("/account", headers=headers, follow_redirects=False)
    assert answer.status_code == status
    assert ("ann" in answer.text and "Analyst" in answer.text) == (status == 200)


def test_behind_a_proxy_each_request_is_its_users_and_nothing_is_stored(proxied, sqlite_queue):
    trusted = {"x-proxy-secret": SECRET}
    page = proxied.get("/account", headers=trusted | {"x-user": "ann"})
    assert "set-cookie" not in page.headers
    assert "Lead" in proxied.get("/account", headers=trusted | {"x-user": "lea"}).text
    csrf = page.text.split('name="csrf" value="')[1].split('"')[0]
    data = {"name": "view", "query": "", "csrf": csrf}
    assert proxied.post("/views", data=data, headers=trusted | {"x-user": "ann"}, follow_redirects=False).status_code == 303
    assert proxied.post("/views", data=data, headers=trusted | {"x-user": "bob"}).status_code == 403, "somebody else's secret"
    assert proxied.post("/views", data=data | {"csrf": ""}, headers=trusted | {"x-user": "ann"}).status_code == 403
    with sqlite_queue.reading() as connection:
        assert connection.execute(select(sessions)).all() == []


def test_people_without_a_password_cannot_use_the_password_form(site):
    for name in (ANN.name, BOB.name):
        assert site.client.post("/sign-in", data={"name": name, "password": ""}, follow_redirects=False).status_code in (401, 422)
