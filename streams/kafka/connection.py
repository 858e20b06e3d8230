"""Addresses, encryption and credentials for every Kafka client, in one ``Connection`` made from the settings."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiokafka.errors
import kafka.errors
from aiokafka.conn import create_conn
from faust.auth import SASLCredentials, SSLCredentials
from faust.types.auth import CredentialsT
from msgspec import Struct

from core.errors import BrokerError, SettingsError
from core.settings import Settings

_PROBE_MS = 5_000
_BOOTSTRAP_MS = 10_000  # kafka-python's default is 30 s, whatever the error
_AUTHENTICATION = (
    aiokafka.errors.AuthenticationFailedError,
    aiokafka.errors.AuthenticationMethodNotSupported,
    aiokafka.errors.SaslAuthenticationFailed,
    aiokafka.errors.UnsupportedSaslMechanismError,
    aiokafka.errors.IllegalSaslStateError,
    kafka.errors.SaslAuthenticationFailedError,
    kafka.errors.UnsupportedSaslMechanismError,
    kafka.errors.IllegalSaslStateError,
)
_AUTHORISATION = (
    aiokafka.errors.TopicAuthorizationFailedError,
    aiokafka.errors.GroupAuthorizationFailedError,
    aiokafka.errors.ClusterAuthorizationFailedError,
    aiokafka.errors.TransactionalIdAuthorizationFailed,
    kafka.errors.AuthorizationError,
)


class Protocol(StrEnum):
    """Kafka's ``security.protocol``."""

    PLAINTEXT = "PLAINTEXT"
    SSL = "SSL"
    SASL_SSL = "SASL_SSL"


class Connection(Struct, frozen=True):
    """Connection settings, converted to the arguments of each client library."""

    bootstrap: str
    prefix: str = ""  # of the names of topics, groups and transactional ids
    protocol: Protocol = Protocol.PLAINTEXT
    tls: ssl.SSLContext | None = None
    mechanism: str = ""
    user: str = ""
    password: str = ""
    api_version: str = ""

    def __repr__(self) -> str:
        return f"Connection({self.bootstrap!r}, {self.protocol.value}, user={self.user!r})"

    def name(self, plain: str) -> str:
        """Return the name in Kafka of a topic, group or transactional id of ``core.topics`` or ``streams.kafka.acls``."""
        return self.prefix + plain

    def plain(self, name: str) -> str:
        """Return the name without the prefix: the reverse of ``name``."""
        return name.removeprefix(self.prefix)

    @property
    def servers(self) -> list[str]:
        """Return host:port of each bootstrap broker."""
        return self.bootstrap.split(",")

    @property
    def aiokafka(self) -> dict[str, Any]:
        """Return the connection arguments of aiokafka's clients."""
        return {"bootstrap_servers": self.servers, **self._security}

    @property
    def kafka_python(self) -> dict[str, Any]:
        """Return the connection arguments of kafka-python's clients."""
        options = {"bootstrap_servers": self.servers, "bootstrap_timeout_ms": _BOOTSTRAP_MS, **self._security}
        if self.api_version:
            options["api_version"] = tuple(int(part) for part in self.api_version.split("."))
        return options

    @property
    def faust(self) -> CredentialsT | None:
        """Return Faust's credentials, or None for PLAINTEXT."""
        match self.protocol:
            case Protocol.PLAINTEXT:
                return None
            case Protocol.SSL:
                return SSLCredentials(self.tls)
            case Protocol.SASL_SSL:
                return SASLCredentials(username=self.user, password=self.password, ssl_context=self.tls, mechanism=self.mechanism)

    @property
    def _security(self) -> dict[str, Any]:
        if self.protocol is Protocol.PLAINTEXT:
            return {}
        options: dict[str, Any] = {"security_protocol": self.protocol.value, "ssl_context": self.tls}
        if self.protocol is Protocol.SASL_SSL:
            options |= {
                "sasl_mechanism": self.mechanism,
                "sasl_plain_username": self.user,
                "sasl_plain_password": self.password,
            }
        return options

    def failed(self, error: BaseException) -> BrokerError:
        """Return an error that names the cause and the setting to check. Connects once more if the client's error names no cause."""
        known = isinstance(error, _AUTHORISATION + _AUTHENTICATION)
        cause = error if known else _in_a_thread(self._probe) or error
        if isinstance(cause, _AUTHORISATION):
            wrong = f"user {self.user or 'of the certificate'} lacks a right: compare its ACLs with `whyflag topics acls`"
        elif isinstance(cause, _AUTHENTICATION):
            wrong = "the broker refuses the log-in: check WHYFLAG_KAFKA_USER, WHYFLAG_KAFKA_PASSWORD and WHYFLAG_KAFKA_SASL"
        elif isinstance(cause, ssl.SSLCertVerificationError):
            wrong = "the broker's certificate has an unknown authority or wrong host: check WHYFLAG_KAFKA_CA and the host name"
        elif isinstance(cause, ssl.SSLError):
            wrong = "this port does not use TLS, or requires a client certificate: check WHYFLAG_KAFKA_SECURITY and _CERTIFICATE"
        else:
            return BrokerError(
                f"Kafka at {self.bootstrap} does not answer ({type(cause).__name__}: {cause}): is it running, and are "
                "WHYFLAG_KAFKA_BOOTSTRAP and WHYFLAG_KAFKA_SECURITY right?"
            )
        return BrokerError(f"Kafka at {self.bootstrap} cannot be used ({type(cause).__name__}: {cause}): {wrong}")

    async def _probe(self) -> BaseException | None:
        """Connect once and return the error, if any: clients that try several brokers do not report the cause."""
        host, _, port = self.servers[0].rpartition(":")
        options = {name: value for name, value in self.aiokafka.items() if name != "bootstrap_servers"}
        try:
            connection = await create_conn(host, int(port), request_timeout_ms=_PROBE_MS, **options)
        except Exception as error:
            while error.__cause__ is not None and isinstance(error, aiokafka.errors.KafkaConnectionError):
                error = error.__cause__  # type: ignore[assignment]
            return error
        connection.close()
        return None


def _in_a_thread(work: Callable[[], Coroutine[Any, Any, BaseException | None]]) -> BaseException | None:
    """Run a coroutine in a thread of its own, so that it works with and without a running event loop."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: asyncio.run(work())).result()


def connection_of(settings: Settings) -> Connection:
    """
    Return the connection that the settings describe.

    Raises:
        SettingsError: if they contradict each other, or a certificate cannot be read.
    """
    protocol = Protocol(settings.kafka_security)
    if protocol is Protocol.SASL_SSL and not (settings.kafka_user and settings.kafka_password):
        raise SettingsError("WHYFLAG_KAFKA_SECURITY=SASL_SSL needs WHYFLAG_KAFKA_USER and WHYFLAG_KAFKA_PASSWORD (or …_FILE)")
    if protocol is not Protocol.SASL_SSL and settings.kafka_user:
        raise SettingsError("WHYFLAG_KAFKA_USER is used with WHYFLAG_KAFKA_SECURITY=SASL_SSL only")
    if protocol is Protocol.PLAINTEXT and settings.kafka_ca:
        raise SettingsError("WHYFLAG_KAFKA_CA is used with WHYFLAG_KAFKA_SECURITY=SSL or SASL_SSL only")
    return Connection(
        bootstrap=settings.kafka_bootstrap,
        prefix=settings.kafka_prefix,
        protocol=protocol,
        tls=None if protocol is Protocol.PLAINTEXT else _tls(settings),
        mechanism=settings.kafka_sasl,
        user=settings.kafka_user,
        password=settings.kafka_password,
        api_version=settings.kafka_api_version,
    )


def _tls(settings: Settings) -> ssl.SSLContext:
    for name in ("kafka_ca", "kafka_certificate", "kafka_certificate_key"):
        path = getattr(settings, name)
        if path and not Path(path).is_file():
            raise SettingsError(f"WHYFLAG_{name.upper()}: no file {path}")
    try:
        context = ssl.create_default_context(cafile=settings.kafka_ca or None)
        if settings.kafka_certificate:
            password = settings.kafka_certificate_password
            context.load_cert_chain(
                settings.kafka_certificate, settings.kafka_certificate_key or None, password=password.encode()
            )
    except (ssl.SSLError, OSError) as error:
        raise SettingsError(
            f"the certificates of WHYFLAG_KAFKA_CA, _CERTIFICATE or _CERTIFICATE_KEY cannot be used: {error}"
        ) from None
    return context
