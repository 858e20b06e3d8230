"""Log-in by OpenID Connect at a real provider."""

import time
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from fastapi.testclient import TestClient

from analyst.access.roles import Role
from analyst.web.app import create_app
from analyst.web.services import CALLBACK, make_services
from core.settings import Settings
from tests.analyst.conftest import ADA, BASE
from tests.openid import OpenIdProvider


@pytest.fixture(scope="module")
def provider(tmp_path_factory):
    opened = OpenIdProvider(tmp_path_factory.mktemp("openid"), f"{BASE}{CALLBACK}")
    yield opened
    opened.close()


@pytest.fixture
def console(sqlite_queue, provider):
    sqlite_queue.clock.now = time.time_ns() // 10**6  # the provider uses the system's time
    settings = Settings(
        console_url=BASE, oidc_issuer=provider.issuer, oidc_client_id=provider.client_id, oidc_client_secret=provider.client_secret,
        oidc_roles="fraud-team=analyst,fraud-leads=lead",
    )  # fmt: skip
    services = make_services(sqlite_queue, settings)
    with TestClient(create_app(services), base_url=BASE) as client:
        client.services = services
        yield client


def depart(console, target="/?order=loss"):
    """Click on the button; return the provider's address."""
    page = console.get("/sign-in", params={"target": target}).text
    assert "your organisation" in page
    answer = console.get("/sign-in/provider", params={"target": target}, follow_redirects=False)
    return answer.headers["location"]


def at_provider(address, name, groups):
    """Sign in at the provider; return the query with which it sends the browser back."""
    OpenIdProvider.person = (name, groups)
    with httpx.Client() as browser:
        while not address.startswith(f"{BASE}{CALLBACK}"):
            answer = browser.get(address)
            address = str(httpx.URL(address).join(answer.headers["location"]))
    return urlsplit(address).query


def sign_in(console, name, groups):
    query = at_provider(depart(console), name, groups)
    return console.get(f"{CALLBACK}?{query}", follow_redirects=False)


def test_a_user_of_the_provider_signs_in_with_the_role_of_the_group(console):
    answer = sign_in(console, "carol", ["staff", "fraud-leads", "fraud-team"])
    assert (answer.status_code, answer.headers["location"]) == (303, "/?order=loss")
    assert console.services.accounts.get("carol").role is Role.LEAD
    assert "carol" in console.get("/leads").text
    console.cookies.clear()
    sign_in(console, "carol", ["fraud-team"])
    assert console.services.accounts.get("carol").role is Role.ANALYST, "each log-in sets the role"
    assert console.get("/leads").status_code == 403


def test_a_user_without_a_group_of_ours_is_refused(console):
    answer = sign_in(console, "dave", ["staff"])
    assert answer.status_code == 401
    assert "WHYFLAG_OIDC_ROLES" in answer.text
    assert console.services.accounts.get("dave") is None


def test_a_name_that_a_user_with_a_password_has_cannot_be_taken_over(console):
    accounts = console.services.accounts
    accounts.accept(accounts.first_invitation(), "correct horse battery")
    answer = sign_in(console, "admin", ["fraud-leads"])
    assert answer.status_code == 401
    assert accounts.get("admin").role is Role.ADMIN


def test_a_disabled_user_is_refused(console):
    sign_in(console, "erin", ["fraud-team"])

    console.services.accounts.change(ADA, "erin", Role.ANALYST, disabled=True)
    console.cookies.clear()
    assert sign_in(console, "erin", ["fraud-team"]).status_code == 401


def test_a_log_in_is_bound_to_its_browser_and_works_once(console):
    query = at_provider(depart(console), "frank", ["fraud-team"])
    with TestClient(console.app, base_url=BASE) as other:  # an attacker sends the link to a victim
        assert other.get(f"{CALLBACK}?{query}", follow_redirects=False).status_code == 401
    assert console.get(f"{CALLBACK}?{query}", follow_redirects=False).status_code == 303
    assert console.get(f"{CALLBACK}?{query}", follow_redirects=False).status_code == 401


def test_a_forged_state_or_code_is_refused(console):
    address = depart(console)
    state = parse_qs(urlsplit(address).query)["state"][0]
    assert console.get(f"{CALLBACK}?code=forged&state=forged", follow_redirects=False).status_code == 401
    assert console.get(f"{CALLBACK}?code=forged&state={state}", follow_redirects=False).status_code == 401


def test_the_request_uses_pkce_a_nonce_and_only_our_callback(console, provider):
    asked = parse_qs(urlsplit(depart(console)).query)
    assert asked["code_challenge_method"] == ["S256"]
    assert len(asked["nonce"][0]) >= 32
    assert asked["redirect_uri"] == [f"{BASE}{CALLBACK}"]
    assert asked["client_id"] == [provider.client_id]


def test_a_provider_that_does_not_answer_is_a_clear_error(sqlite_queue):
    settings = Settings(
        console_url=BASE, oidc_issuer="http://127.0.0.1:1/o", oidc_client_id="c", oidc_client_secret="s", oidc_roles="g=analyst"
    )
    with TestClient(create_app(make_services(sqlite_queue, settings)), base_url=BASE) as client:
        answer = client.get("/sign-in/provider", follow_redirects=False)
    assert answer.status_code == 401
    assert "does not answer" in answer.text
