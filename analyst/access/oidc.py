"""
Log-in by OpenID Connect: authorization code flow with PKCE, by Authlib.

A log-in is bound to the browser that began it by a cookie, and its state, nonce and code verifier are used once.
"""

import secrets
from typing import Any, Final, NamedTuple

from authlib.integrations.httpx_client import OAuth2Client
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from sqlalchemy import delete, insert, select

from analyst.access.accounts import Accounts, User
from analyst.access.roles import Role
from analyst.access.secrets import hash_of, new_secret
from analyst.database import Database
from analyst.tables import oidc_log_ins
from core.clock import MS_PER_MINUTE, Clock
from core.errors import SignInError
from core.settings import Settings

_MS: Final = 10 * MS_PER_MINUTE  # time to sign in at the provider
_ALGORITHMS: Final = ["RS256", "PS256", "ES256", "EdDSA"]  # no "none", no shared secrets
_TIMEOUT_SECONDS: Final = 10.0
_LEEWAY_SECONDS: Final = 60
_RANK: Final = (Role.AUDITOR, Role.ANALYST, Role.LEAD, Role.ADMIN)


class Departure(NamedTuple):
    """A log-in that goes to the provider: the address there, and the state that the browser keeps in a cookie."""

    address: str
    state: str


class Arrival(NamedTuple):
    """A user who came back from the provider, and the page that was wanted."""

    user: User
    target: str


class Provider:
    """The OpenID Connect provider in the settings."""

    def __init__(self, settings: Settings, callback: str, accounts: Accounts, database: Database, clock: Clock) -> None:
        """``callback`` is the address to which the provider sends users back."""
        self._settings, self._callback, self._accounts = settings, callback, accounts
        self._database, self._clock = database, clock
        self._roles = dict(pair.split("=", 1) for pair in settings.oidc_roles.split(",") if pair)
        self._metadata: dict[str, Any] | None = None

    def depart(self, target: str) -> Departure:
        """
        Begin a log-in. ``target`` is the console's page to show afterwards.

        Raises:
            SignInError: if the provider does not answer.
        """
        state, nonce, verifier = new_secret(), new_secret(), secrets.token_urlsafe(64)
        now = self._clock.now_ms()
        row = {"state_hash": hash_of(state), "nonce": nonce, "verifier": verifier, "target": target, "expires_at": now + _MS}
        with self._client() as client:
            address, _ = client.create_authorization_url(
                self._discovered(client)["authorization_endpoint"], state=state, nonce=nonce, code_verifier=verifier
            )
        with self._database.engine.begin() as connection:
            connection.execute(delete(oidc_log_ins).where(oidc_log_ins.c.expires_at <= now))
            connection.execute(insert(oidc_log_ins).values(row))
        return Departure(address, state)

    def arrive(self, query: str, state: str, cookie: str) -> Arrival:
        """
        Finish a log-in with the query part of the address to which the provider sent the user.

        Raises:
            SignInError: if the log-in did not begin in this browser, was used or has expired, or the provider refuses it.
        """
        row = self._taken(state) if state and secrets.compare_digest(state.encode(), cookie.encode()) else None
        if row is None:
            raise SignInError("this log-in did not begin in this browser, or took too long: sign in again")
        with self._client() as client:
            metadata = self._discovered(client)
            try:
                token = client.fetch_token(
                    metadata["token_endpoint"],
                    authorization_response=f"{self._callback}?{query}",
                    code_verifier=row.verifier,
                    state=state,
                )
                keys = KeySet.import_key_set(client.request("GET", metadata["jwks_uri"], withhold_token=True).json())
                claims = jwt.decode(token["id_token"], keys, algorithms=_ALGORITHMS).claims
                self._check(claims, row.nonce)
            except SignInError:
                raise
            except (JoseError, KeyError, ValueError) as error:
                raise SignInError(f"the provider's answer cannot be used: {type(error).__name__}") from None
            except Exception as error:  # Authlib and httpx raise many classes; each means that the log-in failed
                raise SignInError(f"the provider refused the log-in: {type(error).__name__}") from None
        return Arrival(self._user(claims), row.target)

    def _check(self, claims: dict[str, Any], nonce: str) -> None:
        now = self._clock.now_ms() // 1000
        registry = jwt.JWTClaimsRegistry(
            now=now,
            leeway=_LEEWAY_SECONDS,
            iss={"essential": True, "value": self._settings.oidc_issuer},
            aud={"essential": True, "value": self._settings.oidc_client_id},
            nonce={"essential": True, "value": nonce},
            exp={"essential": True},
            sub={"essential": True},
        )
        registry.validate(claims)

    def _user(self, claims: dict[str, Any]) -> User:
        held = claims.get(self._settings.oidc_role_claim, [])
        groups = [held] if isinstance(held, str) else held if isinstance(held, list) else []
        roles = [Role(self._roles[group]) for group in groups if isinstance(group, str) and group in self._roles]
        if not roles:
            self._accounts.lost_role(self._settings.oidc_issuer, str(claims["sub"]))
            raise SignInError("none of your groups has a role here: ask an administrator to add one to WHYFLAG_OIDC_ROLES")
        name = claims.get("preferred_username") or claims.get("email") or claims["sub"]
        return self._accounts.from_provider(
            self._settings.oidc_issuer, str(claims["sub"]), str(name), max(roles, key=_RANK.index)
        )

    def _taken(self, state: str) -> Any:
        """Return the log-in with this state, which cannot be used again."""
        with self._database.changing() as connection:
            which = oidc_log_ins.c.state_hash == hash_of(state)
            row = connection.execute(select(oidc_log_ins).where(which, oidc_log_ins.c.expires_at > self._clock.now_ms())).first()
            connection.execute(delete(oidc_log_ins).where(which))
        return row

    def _client(self) -> OAuth2Client:
        return OAuth2Client(
            self._settings.oidc_client_id,
            self._settings.oidc_client_secret,
            scope="openid profile email",
            redirect_uri=self._callback,
            code_challenge_method="S256",
            timeout=_TIMEOUT_SECONDS,
        )

    def _discovered(self, client: OAuth2Client) -> dict[str, Any]:
        if self._metadata is None:
            where = f"{self._settings.oidc_issuer.rstrip('/')}/.well-known/openid-configuration"
            try:
                metadata = client.request("GET", where, withhold_token=True).raise_for_status().json()
            except Exception as error:
                raise SignInError(f"the provider {self._settings.oidc_issuer} does not answer: {type(error).__name__}") from None
            if metadata.get("issuer") != self._settings.oidc_issuer:
                raise SignInError("the provider names another issuer: set WHYFLAG_OIDC_ISSUER to the name in its configuration")
            self._metadata = metadata
        return self._metadata
