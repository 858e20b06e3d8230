"""
A Kafka broker as a bank runs it: TLS, client certificates or passwords (SCRAM, PLAIN), and enforced ACLs.

Each broker gets new certificates and passwords.
"""

import base64
import datetime as dt
import ipaddress
import secrets
import uuid
from pathlib import Path
from types import TracebackType

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.supervisor import free_ports
from core.settings import Settings
from streams.kafka.acls import Role
from tests.kafka.broker import KafkaCluster, Node, obtain_jars

MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256")
PREFIX = "staging-"  # of the topics: it must reach every client, group, transactional id and right


class Authority:
    """A certificate authority that signs for one broker and its clients."""

    def __init__(self, folder: Path, name: str = "whyflag tests") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._key, self._name = ec.generate_private_key(ec.SECP256R1()), _named(name)
        self._certificate = self._signed(self._name, self._key, x509.BasicConstraints(ca=True, path_length=0))
        self.path = folder / "ca.pem"
        self.path.write_bytes(self._certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str) -> Path:
        """Write a PEM file with a key and certificate for ``name``, valid for loopback, and return its path."""
        key = ec.generate_private_key(ec.SECP256R1())
        names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        certificate = self._signed(_named(name), key, names)
        pem = serialization.Encoding.PEM
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        path = self._folder / f"{name}.pem"
        path.write_bytes(private + certificate.public_bytes(pem) + self._certificate.public_bytes(pem))
        return path

    def _signed(self, name: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=2))
            .add_extension(extension, critical=False)
            .sign(self._key, hashes.SHA256())
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class SecuredKafka:
    """Secured broker: ``with SecuredKafka(folder) as kafka: kafka.settings("score")``. Without an ACL, access is denied."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.authority = Authority(folder / "certificates")
        self.passwords = {name: secrets.token_urlsafe(16) for name in ("admin", "nobody", "plain", *Role)}
        controller, self._inside, self._sasl, self._tls = free_ports(4)
        keys = {"keystore": self.authority.issue("broker"), "truststore": self.authority.path}
        scram, plain = (
            "org.apache.kafka.common.security.scram.ScramLoginModule",
            "org.apache.kafka.common.security.plain.PlainLoginModule",
        )
        listeners = f"INSIDE://127.0.0.1:{self._inside},SASL_SSL://127.0.0.1:{self._sasl},SSL://127.0.0.1:{self._tls}"
        settings = {
            "listeners": f"{listeners},CONTROLLER://127.0.0.1:{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,INSIDE:PLAINTEXT,SASL_SSL:SASL_SSL,SSL:SSL",
            "inter.broker.listener.name": "INSIDE",
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "false",
            "super.users": "User:ANONYMOUS;User:admin",  # anonymous: the broker and this harness, on INSIDE
            "sasl.enabled.mechanisms": "SCRAM-SHA-256,SCRAM-SHA-512,PLAIN",
            "listener.name.ssl.ssl.client.auth": "required",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{plain} required user_plain="{self.passwords["plain"]}";',
            **{f"listener.name.sasl_ssl.{name.lower()}.sasl.jaas.config": f"{scram} required;" for name in MECHANISMS},
            **{f"ssl.{store}.{key}": value for store, path in keys.items() for key, value in (("type", "PEM"), ("location", path))},
        }  # fmt: skip
        self._node = Node(
            1,
            folder / "node",
            obtain_jars(),
            [(1, controller)],
            self._inside,
            self._inside,
            ["-XX:TieredStopAtLevel=1"],
            settings,
        )

    def __enter__(self) -> "SecuredKafka":
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        users = [
            f"--add-scram={mechanism}=[name={self.user(name)},password={password}]"
            for name, password in self.passwords.items()
            if name != "plain"
            for mechanism in MECHANISMS
        ]
        self._node.format(cluster, *users)
        self._node.start()
        try:
            KafkaCluster.wait_for([self._node])
        except BaseException:
            self._node.stop()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._node.stop()

    @staticmethod
    def user(name: str) -> str:
        """Return the Kafka user name."""
        return name if name in ("admin", "plain") else f"whyflag-{name}"

    def settings(self, name: str, mechanism: str = "SCRAM-SHA-512", **changes: object) -> Settings:
        """Return settings for a user that logs in with a password."""
        values: dict[str, object] = {
            "kafka_bootstrap": f"127.0.0.1:{self._sasl}",
            "kafka_prefix": PREFIX,
            "kafka_security": "SASL_SSL",
            "kafka_sasl": mechanism,
            "kafka_ca": str(self.authority.path),
            "kafka_user": self.user(name),
            "kafka_password": self.passwords[name],
        }
        return Settings(**(values | changes))  # type: ignore[arg-type]

    def with_certificate(self, name: str) -> Settings:
        """Return settings for a client that presents a certificate; its Kafka principal is ``User:CN=name``."""
        return Settings(
            kafka_bootstrap=f"127.0.0.1:{self._tls}",
            kafka_prefix=PREFIX,
            kafka_security="SSL",
            kafka_ca=str(self.authority.path),
            kafka_certificate=str(self.authority.issue(name)),
        )
