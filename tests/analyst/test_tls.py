"""TLS at the console, with client certificates for a proxy."""

import socket
import ssl
import threading
import time

import httpx
import pytest

from analyst.web.app import create_app
from analyst.web.services import make_services
from cli.operations.console import _server
from core.errors import SettingsError
from core.settings import Settings
from tests.analyst.conftest import add_people
from tests.kafka.secured import Authority


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "authority")


@pytest.fixture
def console(sqlite_queue, authority):
    """A console that demands client certificates and trusts the header of those who have one; yields its address."""
    settings = Settings(
        console_certificate=str(authority.issue("console")),
        console_client_ca=str(authority.path),
        proxy_header="x-user",
    )
    add_people(sqlite_queue)
    server = _server(create_app(make_services(sqlite_queue, settings)), settings)
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield f"https://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join()
    listening.close()


def client_with(authority, certificate=None):
    context = ssl.create_default_context(cafile=str(authority.path))
    if certificate is not None:
        context.load_cert_chain(str(certificate))
    return httpx.Client(verify=context)


def test_only_a_proxy_with_a_certificate_of_the_authority_names_the_user(console, authority, tmp_path):
    with client_with(authority, authority.issue("proxy")) as proxy:
        answer = proxy.get(f"{console}/account", headers={"x-user": "ann"})
        assert (answer.status_code, "Analyst" in answer.text) == (200, True)
        csrf = answer.text.split('name="csrf" value="')[1].split('"')[0]
        saved = proxy.post(f"{console}/views", data={"name": "v", "csrf": csrf}, headers={"x-user": "ann"})
        assert saved.status_code == 303
    strangers = Authority(tmp_path / "strangers", "strangers")
    for certificate in (None, strangers.issue("eve")):
        with client_with(authority, certificate) as stranger, pytest.raises(httpx.TransportError):
            stranger.get(f"{console}/account", headers={"x-user": "ann"})


@pytest.mark.parametrize(
    "changes", [{"console_certificate": "/none.crt"}, {"console_client_ca": "/none.pem", "console_certificate": ""}]
)
def test_a_certificate_that_cannot_be_used_is_a_clear_error(sqlite_queue, authority, changes):
    settings = Settings(**{"console_certificate": str(authority.issue("console"))} | changes)
    with pytest.raises(SettingsError, match="WHYFLAG_CONSOLE"):
        _server(create_app(make_services(sqlite_queue, settings)), settings)
