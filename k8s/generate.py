"""
Write the manifests that follow from the code: Strimzi's topics and users, external secrets, alert rules and dashboards. Run by
``make reference``.

The folder ``rendered`` shows what kustomize makes of each overlay: ``python -m k8s.generate --render`` writes it and needs kubectl.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import yaml
from kafka.admin import ResourceType

from core.topics import MIN_INSYNC, TOPICS
from monitoring.generate import HERE as MONITORING
from monitoring.generate import NOTE, dashboard_texts
from streams.kafka.acls import RIGHTS, Right, Role

HERE = Path(__file__).parent
CLUSTER: Final = {"strimzi.io/cluster": "whyflag-kafka"}
PARTITIONS, REPLICAS = 12, 3

_KAFKA: Final = ("WHYFLAG_KAFKA_USER", "WHYFLAG_KAFKA_PASSWORD")
# What each program needs, and no more: only those who tokenise card numbers hold the PAN key.
SECRETS: Final = {
    "score": (*_KAFKA, "WHYFLAG_PAN_KEY"),
    "explain": (*_KAFKA, "WHYFLAG_DATABASE", "WHYFLAG_LLM_KEY"),
    "archive": (*_KAFKA, "WHYFLAG_DATABASE", "WHYFLAG_PAN_KEY"),
    "console": (*_KAFKA, "WHYFLAG_DATABASE", "WHYFLAG_AUDIT_KEY", "WHYFLAG_OIDC_CLIENT_SECRET", "WHYFLAG_LLM_KEY"),
    "database": ("WHYFLAG_DATABASE",),
    "retrain": (*_KAFKA, "WHYFLAG_DATABASE", "WHYFLAG_AUDIT_KEY", "WHYFLAG_PAN_KEY"),
    "housekeeping": (*_KAFKA, "WHYFLAG_DATABASE", "WHYFLAG_AUDIT_KEY", "WHYFLAG_AUDIT_FORMER_KEYS"),
    "keda": ("sasl", "username", "password", "tls", "ca"),
}
_TYPES: Final = {ResourceType.TOPIC: "topic", ResourceType.GROUP: "group", ResourceType.TRANSACTIONAL_ID: "transactionalId"}
# the program's secret, and the key in it, that hold a role's password; Strimzi makes up the passwords of the others
_PASSWORDS: Final = {
    Role.SCORE: ("score", "WHYFLAG_KAFKA_PASSWORD"),
    Role.EXPLAIN: ("explain", "WHYFLAG_KAFKA_PASSWORD"),
    Role.ARCHIVE: ("archive", "WHYFLAG_KAFKA_PASSWORD"),
    Role.CONSOLE: ("console", "WHYFLAG_KAFKA_PASSWORD"),
    Role.RETRAIN: ("retrain", "WHYFLAG_KAFKA_PASSWORD"),
    Role.AUDITOR: ("housekeeping", "WHYFLAG_KAFKA_PASSWORD"),
    Role.SCALER: ("keda", "password"),
}


def topics() -> list[dict[str, Any]]:
    """Return a KafkaTopic for each topic."""
    return [
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {"name": topic.name, "labels": CLUSTER},
            "spec": {"partitions": PARTITIONS, "replicas": REPLICAS, "config": topic.config | {MIN_INSYNC: str(REPLICAS - 1)}},
        }
        for topic in TOPICS
    ]


def users() -> list[dict[str, Any]]:
    """Return a KafkaUser with the rights of each role, and an administrator, whose rights are in ``cluster.yaml``."""
    administrator = {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        "metadata": {"name": "kafka-admin", "labels": CLUSTER},
        "spec": {"authentication": {"type": "scram-sha-512"}},
    }
    return [*(_user(role) for role in Role), administrator]


def _user(role: Role) -> dict[str, Any]:
    authentication: dict[str, Any] = {"type": "scram-sha-512"}
    if role in _PASSWORDS:
        secret, key = _PASSWORDS[role]
        authentication["password"] = {"valueFrom": {"secretKeyRef": {"name": f"whyflag-{secret}", "key": key}}}
    return {
        "apiVersion": "kafka.strimzi.io/v1",
        "kind": "KafkaUser",
        # the operator makes a secret of the user's name: it must not be that of a program
        "metadata": {"name": f"kafka-{role.value}", "labels": CLUSTER},
        "spec": {
            "authentication": authentication,
            "authorization": {"type": "simple", "acls": [_acl(right) for right in RIGHTS[role]]},
        },
    }


def _acl(right: Right) -> dict[str, Any]:
    return {
        "resource": {"type": _TYPES[right.resource], "name": right.name, "patternType": "prefix" if right.prefix else "literal"},
        "operations": [right.operation_name],
    }


def secrets() -> list[dict[str, Any]]:
    """Return an ExternalSecret for each program. In the store, the entry ``whyflag/score`` holds the values of the secret ``whyflag-score``."""
    return [
        {
            "apiVersion": "external-secrets.io/v1",
            "kind": "ExternalSecret",
            "metadata": {"name": f"whyflag-{program}"},
            "spec": {
                "refreshInterval": "1h",
                "secretStoreRef": {"kind": "ClusterSecretStore", "name": "whyflag"},
                "target": {"name": f"whyflag-{program}", "creationPolicy": "Owner"},
                "data": [{"secretKey": key, "remoteRef": {"key": f"whyflag/{program}", "property": key}} for key in keys],
            },
        }
        for program, keys in SECRETS.items()
    ]


def rules() -> dict[str, Any]:
    """Return the alert rules of ``monitoring/rules.yaml`` as a resource of the Prometheus operator."""
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "whyflag"},
        "spec": yaml.safe_load((MONITORING / "rules.yaml").read_text()),
    }


def dashboards() -> dict[str, Any]:
    """Return the dashboards as a config map, which Grafana's sidecar finds by its label."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "whyflag-dashboards", "labels": {"grafana_dashboard": "1"}},
        "data": {f"{name}.json": text for name, text in dashboard_texts().items()},
    }


def manifests() -> dict[Path, str]:
    """Return the content of each generated manifest."""
    found = {
        "strimzi/topics.yaml": topics(),
        "strimzi/users.yaml": users(),
        "external-secrets/secrets.yaml": secrets(),
        "monitoring/rules.yaml": [rules()],
        "monitoring/dashboards.yaml": [dashboards()],
    }
    return {
        HERE / "components" / name: NOTE + yaml.safe_dump_all(documents, sort_keys=False, allow_unicode=True, width=1000)
        for name, documents in found.items()
    }


def rendered(kubectl: str = "kubectl") -> dict[Path, str]:
    """Return what kustomize makes of each overlay."""
    return {
        HERE / "rendered" / f"{overlay.name}.yaml": NOTE
        + subprocess.run([kubectl, "kustomize", overlay], capture_output=True, text=True, check=True).stdout
        for overlay in (HERE / "overlays" / "dev", HERE / "overlays" / "prod")
    }


def main() -> None:
    """Write the manifests; with ``--render``, the rendered overlays, too."""
    for path, content in manifests().items():
        path.write_text(content)
    for path, content in (rendered() if "--render" in sys.argv else {}).items():
        path.write_text(content)


if __name__ == "__main__":
    main()
