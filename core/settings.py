"""Settings, read once at the entry points from ``WHYFLAG_*`` environment variables."""

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from core.errors import SettingsError
from core.privacy.masking import Privacy

Port = Annotated[int, Meta(ge=0, le=65535)]


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    All settings, with their defaults and meanings.

    The field ``kafka_bootstrap``, for example, is read from ``WHYFLAG_KAFKA_BOOTSTRAP``, or from the file named by
    ``WHYFLAG_KAFKA_BOOTSTRAP_FILE``.
    Secrets are never printed.
    """

    kafka_bootstrap: Annotated[
        str, Meta(pattern=r"^[^\s,:]+:[0-9]{1,5}(,[^\s,:]+:[0-9]{1,5})*$", description="host:port[,host:port] of Kafka")
    ] = "127.0.0.1:9092"
    kafka_api_version: Annotated[
        str, Meta(pattern=r"^(\d+\.\d+)?$", description="protocol version for brokers that cannot negotiate; empty: negotiate")
    ] = ""
    kafka_prefix: Annotated[
        str,
        Meta(
            pattern=r"^[a-zA-Z0-9._-]{0,64}$",
            description="prefix of the names of all topics, consumer groups and transactional ids, such as staging-; several "
            "installations can so share one Kafka",
        ),
    ] = ""
    kafka_security: Annotated[
        Literal["PLAINTEXT", "SSL", "SASL_SSL"],
        Meta(description="PLAINTEXT, SSL (with client certificates) or SASL_SSL (with a password)"),
    ] = "PLAINTEXT"
    kafka_ca: Annotated[
        str, Meta(description="PEM file of the authority that signs the brokers' certificates; empty: the system's list")
    ] = ""
    kafka_certificate: Annotated[str, Meta(description="PEM file of this client's certificate, for SSL")] = ""
    kafka_certificate_key: Annotated[str, Meta(description="PEM file of this client's key, if not in the certificate file")] = ""
    kafka_certificate_password: Annotated[str, Meta(description="password of the client's private key")] = ""
    kafka_sasl: Annotated[
        Literal["SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"],
        Meta(description="SCRAM-SHA-512, SCRAM-SHA-256 or PLAIN, for SASL_SSL"),
    ] = "SCRAM-SHA-512"
    kafka_user: Annotated[str, Meta(description="Kafka user name, for SASL_SSL")] = ""
    kafka_password: Annotated[str, Meta(description="password of the Kafka user")] = ""
    pan_key: Annotated[str, Meta(description="secret key that tokenises card numbers; at least 16 characters")] = ""
    database: Annotated[str, Meta(description="SQLAlchemy URL of the analyst's queue")] = "sqlite:///whyflag.db"
    archive: Annotated[
        str, Meta(description="SQLAlchemy URL of the archive of transactions, decisions and labels; empty: the queue's database")
    ] = ""
    archive_days: Annotated[
        int, Meta(ge=1, le=3_660, description="days that the archive keeps a record after it was written")
    ] = 100
    label_delay_days: Annotated[
        float,
        Meta(gt=0, le=365, description="days after which a decision without a fraud label counts as legitimate in the metrics"),
    ] = 7.0
    casebook: Annotated[
        str,
        Meta(
            min_length=1,
            description="folder of the casebook's index, or SQLAlchemy URL of a PostgreSQL database with pgvector "
            "that explainers share",
        ),
    ] = "casebook"
    bundle: Annotated[
        str, Meta(description="folder of the model bundle to score with, or of a bundle store watched for a new champion")
    ] = "bundle"
    metrics_port: Annotated[Port, Meta(description="port for Prometheus metrics and health; 0 picks a free port")] = 9464
    metrics_host: Annotated[str, Meta(description="address on which metrics and health are served")] = "0.0.0.0"  # noqa: S104 -- probes and Prometheus come from outside the pod
    console_host: Annotated[str, Meta(description="address the console listens on")] = "127.0.0.1"
    console_port: Annotated[Port, Meta(description="port of the console; 0 picks a free port")] = 8080
    console_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://[^/\s]+)?$",
            description="address of the console in browsers, such as https://fraud.example.org; required if the console listens on "
            "an address other than loopback; its host name is the only one that the console accepts",
        ),
    ] = ""
    console_certificate: Annotated[str, Meta(description="PEM file of the console's TLS certificate; empty: plain HTTP")] = ""
    console_certificate_key: Annotated[str, Meta(description="PEM file of the key of the console's certificate")] = ""
    console_client_ca: Annotated[
        str, Meta(description="PEM file of the authority whose client certificates the console demands of every client; for mTLS")
    ] = ""
    proxy_header: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9-]{1,64})?$",
            description="HTTP header in which a proxy passes the name of the signed-in user; needs WHYFLAG_PROXY_SECRET or "
            "WHYFLAG_CONSOLE_CLIENT_CA; empty: no header is trusted",
        ),
    ] = ""
    proxy_secret: Annotated[
        str, Meta(description="secret that the proxy sends in the header x-proxy-secret; at least 16 characters")
    ] = ""
    oidc_issuer: Annotated[
        str, Meta(pattern=r"^(https?://\S+)?$", description="issuer of OpenID Connect log-ins; empty: no such log-ins")
    ] = ""
    oidc_client_id: Annotated[str, Meta(description="the console's client ID at the issuer")] = ""
    oidc_client_secret: Annotated[str, Meta(description="the console's client secret at the issuer")] = ""
    oidc_role_claim: Annotated[str, Meta(min_length=1, description="claim of the ID token that holds a user's groups")] = "groups"
    oidc_roles: Annotated[
        str,
        Meta(
            pattern=r"^([^=,]+=(analyst|lead|admin|auditor)(,[^=,]+=(analyst|lead|admin|auditor))*)?$",
            description="role of each group, such as fraud-team=analyst,fraud-leads=lead; users without such a group are refused",
        ),
    ] = ""
    session_hours: Annotated[float, Meta(gt=0, le=168, description="hours after which a user must sign in again")] = 12.0
    session_idle_minutes: Annotated[
        float, Meta(gt=0, le=10_080, description="minutes without a request after which a user must sign in again")
    ] = 60.0
    severity_losses: Annotated[
        str,
        Meta(
            pattern=r"^\d+,\d+$",
            description="expected losses, in units of the feature spec's currency, from which an alert is critical and high",
        ),
    ] = "500,50"
    severity_deadlines: Annotated[
        str,
        Meta(
            pattern=r"^\d+[smhd],\d+[smhd],\d+[smhd]$",
            description="time within which a critical, a high and a normal alert needs a verdict",
        ),
    ] = "1h,4h,24h"
    claim_minutes: Annotated[
        float, Meta(gt=0, le=1_440, description="minutes after which a claimed alert returns to the queue")
    ] = 15.0
    verdict_grace_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="seconds in which a verdict can be undone; its label leaves afterwards")
    ] = 30.0
    bulk_grace_seconds: Annotated[
        float, Meta(ge=0, le=86_400, description="seconds in which a verdict on many alerts can be undone")
    ] = 600.0
    audit_key: Annotated[
        str,
        Meta(
            description="secret key of the audit trail's signatures; at least 16 characters; without it, whoever can write to the "
            "database can also sign"
        ),
    ] = ""
    audit_former_keys: Annotated[
        str,
        Meta(
            description="former values of WHYFLAG_AUDIT_KEY, separated by commas or one in a line; `whyflag audit verify`, `change-key` "
            "and `accept-loss` need them"
        ),
    ] = ""
    assistant_daily_questions: Annotated[
        int, Meta(ge=0, le=100_000, description="questions that one user may ask the assistant in 24 hours")
    ] = 50
    assistant_concurrency: Annotated[int, Meta(ge=1, le=256, description="questions that the assistant answers at once")] = 4
    retention_days: Annotated[
        int, Meta(ge=1, le=36_500, description="days after which `whyflag purge` deletes closed alerts and their verdicts")
    ] = 730
    next_steps: Annotated[str, Meta(description="TOML file of next steps by theme and typology; empty: built-in steps")] = ""
    llm_url: Annotated[str, Meta(description="base URL of an OpenAI-compatible server; empty: templates only")] = ""
    llm_model: Annotated[str, Meta(description="name of the model on the LLM server")] = ""
    llm_key: Annotated[str, Meta(description="API key for the LLM server")] = "none"
    llm_class: Annotated[
        str, Meta(description="dotted name of another LlamaIndex LLM class, e.g. llama_index.llms.anthropic.Anthropic")
    ] = ""
    llm_options: Annotated[str, Meta(description="arguments of WHYFLAG_LLM_CLASS, as a JSON object")] = ""
    llm_prompt: Annotated[str, Meta(min_length=1, description="version of the narrative prompt, or path of a prompt file")] = (
        "narrative-3"
    )
    llm_timeout: Annotated[float, Meta(gt=0, description="seconds one narrative may take, retries included")] = 20.0
    llm_concurrency: Annotated[int, Meta(ge=1, le=256, description="concurrent requests to the language model")] = 4
    llm_prompt_price: Annotated[float, Meta(ge=0, description="price of a million prompt tokens, for the cost metric")] = 0.0
    llm_answer_price: Annotated[float, Meta(ge=0, description="price of a million answer tokens")] = 0.0
    checkpoints: Annotated[
        bool, Meta(description="write state to checkpoint logs; false: keep state in memory only, lost when the worker stops")
    ] = True
    checkpoint_seconds: Annotated[
        float,
        Meta(
            gt=0,
            le=600,
            description="seconds between checkpoints; a worker that takes over a partition replays at most "
            "that many seconds of records",
        ),
    ] = 1.0
    session_seconds: Annotated[
        float, Meta(ge=1, le=300, description="seconds without a heartbeat after which a worker's partitions are reassigned")
    ] = 15.0
    stalled_seconds: Annotated[
        float, Meta(gt=0, description="seconds without progress, while records wait, after which a worker exits")
    ] = 120.0
    broker_silence_seconds: Annotated[
        float, Meta(gt=0, description="seconds without a response from Kafka or the database after which /ready fails")
    ] = 30.0
    state_keys: Annotated[
        int,
        Meta(
            ge=1_000,
            description="maximum number of cards, and of merchants, in a partition's state; at the maximum, the least recently "
            "active ones are evicted",
        ),
    ] = 1_000_000
    bundle_public_key: Annotated[
        str,
        Meta(
            description="PEM file of Ed25519 public keys; only what one of their private keys has signed is used; empty: any bundle"
        ),
    ] = ""
    bundle_signing_key: Annotated[
        str,
        Meta(
            description="PEM file of the Ed25519 private key that promotions, challenges and list changes sign with; empty: none"
        ),
    ] = ""
    trace_url: Annotated[
        str,
        Meta(
            pattern=r"^(https?://\S+)?$",
            description="OTLP/HTTP address for traces, such as http://collector:4318/v1/traces; needs the tracing extra; empty: no traces",
        ),
    ] = ""
    trace_share: Annotated[
        float, Meta(ge=0, le=1, description="share of the transactions that are traced, unless their producer has chosen")
    ] = 0.001
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="lowest level to log: debug, info, warning or error")
    ] = "info"
    log_format: Annotated[
        Literal["auto", "json", "plain"], Meta(description="json, plain, or auto: plain on a terminal, else JSON")
    ] = "auto"
    max_poll_records: Annotated[int, Meta(ge=1, le=10_000, description="maximum number of records per fetch")] = 500

    def __repr__(self) -> str:
        shown = {name: "…" if name in SECRETS and getattr(self, name) else getattr(self, name) for name in self.__struct_fields__}
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def privacy(self) -> Privacy:
        """``Privacy`` with the configured key."""
        return Privacy(self.pan_key.encode())

    @property
    def archive_url(self) -> str:
        """SQLAlchemy URL of the archive."""
        return self.archive or self.database

    @property
    def bundle_dir(self) -> Path:
        """Folder of the bundle, or of the bundle store."""
        return Path(self.bundle)


SECRETS = (
    "kafka_certificate_password", "kafka_password", "pan_key", "database", "archive", "llm_key", "llm_options", "proxy_secret",
    "oidc_client_secret", "audit_key", "audit_former_keys",
)  # fmt: skip
_KEYS = ("pan_key", "proxy_secret", "audit_key")  # secrets of at least 16 characters


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """
    Read the settings from the environment.

    Raises:
        SettingsError: if a variable has an invalid value or a ``WHYFLAG_`` variable is unknown.
    """
    given = {
        name.removeprefix("WHYFLAG_").lower(): value
        for name, value in environment.items()
        if name.startswith("WHYFLAG_") and name != "WHYFLAG_TOKEN"  # who runs a command: see cli.identity
    }
    for name in [name for name in given if name.endswith("_file")]:
        field, path = name.removesuffix("_file"), given.pop(name)
        if field in given:
            raise SettingsError(f"WHYFLAG_{field.upper()} and WHYFLAG_{name.upper()} are both set: set only one of them")
        try:
            given[field] = Path(path).read_text().rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"WHYFLAG_{name.upper()}: {path} cannot be read: {error}") from None
    for name in given:
        _check(name, given[name])
    settings = msgspec.convert(given, Settings, strict=False)
    for name in _KEYS:
        if 0 < len(getattr(settings, name)) < 16:
            raise SettingsError(f"WHYFLAG_{name.upper()} is too short: use at least 16 characters")
    return settings


def _check(name: str, value: str) -> None:
    """
    Check one setting on its own, so that an error names its variable.

    Raises:
        SettingsError: if there is no such setting, or it cannot have this value.
    """
    variable = f"WHYFLAG_{name.upper()}"
    if name not in Settings.__struct_fields__:
        near = difflib.get_close_matches(name, Settings.__struct_fields__, n=1)
        meant = f"did you mean WHYFLAG_{near[0].upper()}? " if near else ""
        raise SettingsError(f"{variable} is not a setting: {meant}docs/reference/settings.md lists all of them")
    try:
        msgspec.convert({name: value}, Settings, strict=False)
    except msgspec.ValidationError as error:
        reason = str(error).removesuffix(f" - at `$.{name}`")
        shown = "" if name in SECRETS else f"={value}"
        raise SettingsError(f"{variable}{shown} is invalid: {reason} (meaning: {_meaning(name)})") from None


def _meaning(name: str) -> str:
    """Return the description of a setting."""
    metadata = get_type_hints(Settings, include_extras=True)[name].__metadata__
    return next(str(one.description) for one in metadata if one.description)
