"""An OpenID Connect provider for tests: Django OAuth Toolkit on loopback, which signs in whoever the test names."""

import os
import sys
import threading
import types
from wsgiref.simple_server import WSGIRequestHandler, make_server

os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")

import django
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import settings
from django.http import HttpResponseRedirect
from django.urls import include, path


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


def _private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return key.private_bytes(*form).decode()


class OpenIdProvider:
    """A provider with one client. ``person`` is the name and the groups of whoever signs in next."""

    client_id, client_secret = "whyflag-console", "a secret of the console"
    person: tuple[str, list[str]] = ("", [])

    def __init__(self, folder, callback: str) -> None:
        self._server = make_server("127.0.0.1", 0, self._application(folder), handler_class=_QuietHandler)
        self.issuer = f"http://127.0.0.1:{self._server.server_port}/o"
        from oauth2_provider.models import Application

        Application.objects.all().delete()
        Application.objects.create(
            name="console", client_id=self.client_id, client_secret=self.client_secret, client_type="confidential",
            authorization_grant_type="authorization-code", redirect_uris=callback, skip_authorization=True, algorithm="RS256",
        )  # fmt: skip
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def _application(self, folder):
        if not settings.configured:
            settings.configure(
                SECRET_KEY="only for tests", ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF="openid_urls", USE_TZ=True, LOGIN_URL="/log-in/",
                DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "provider.db")}},
                INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", "oauth2_provider"],
                MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware", "django.contrib.auth.middleware.AuthenticationMiddleware"],
                OAUTH2_PROVIDER={
                    "OIDC_ENABLED": True, "OIDC_RSA_PRIVATE_KEY": _private_key(), "PKCE_REQUIRED": True,
                    "SCOPES": {"openid": "OpenID Connect", "profile": "name", "email": "address"},
                    "OAUTH2_VALIDATOR_CLASS": f"{__name__}.validator",
                },
            )  # fmt: skip
            django.setup()
            from django.core.management import call_command

            call_command("migrate", verbosity=0)
            # the addresses can be imported only now that Django is configured
            sys.modules["openid_urls"] = addresses = types.ModuleType("openid_urls")
            own = include("oauth2_provider.urls", namespace="oauth2_provider")
            addresses.urlpatterns = [path("log-in/", _log_in), path("o/", own)]
        from django.core.wsgi import get_wsgi_application

        return get_wsgi_application()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _log_in(request):
    from django.contrib.auth import login
    from django.contrib.auth.models import User

    name, _ = OpenIdProvider.person
    user, _ = User.objects.get_or_create(username=name)
    login(request, user, backend="django.contrib.auth.backends.ModelBackend")
    return HttpResponseRedirect(request.GET["next"])


def validator():
    """Return the validator that adds a user's name and groups to the ID token; made late, because Django must be configured."""
    from oauth2_provider.oauth2_validators import OAuth2Validator

    class Validator(OAuth2Validator):
        oidc_claim_scope = None

        def get_additional_claims(self, request):
            return {"preferred_username": request.user.username, "groups": OpenIdProvider.person[1]}

    return Validator()
