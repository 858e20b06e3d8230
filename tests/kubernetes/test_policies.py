"""The rendered manifests satisfy our policies, and each policy finds a violation that is seeded into them."""

import copy
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from k8s.generate import HERE, manifests, rendered
from tests.conftest import needs
from tests.kubernetes import policies
from tests.kubernetes.policies import POLICIES, of_kind, pods

OVERLAYS = {path.stem: list(yaml.safe_load_all(path.read_text())) for path in sorted((HERE / "rendered").glob("*.yaml"))}
NATIVE = ("v1", "apps/v1", "batch/v1", "policy/v1", "networking.k8s.io/v1")


@pytest.mark.parametrize("policy", POLICIES, ids=lambda policy: policy.__name__)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_rendered_manifests_satisfy_every_policy(overlay, policy):
    assert list(policy(OVERLAYS[overlay])) == []


def _pod(found, name="whyflag-score"):
    return next((pod, container) for own, _, pod, container in pods(found) if own == name)


def _named(found, kind, name=None):
    return next(one for one in of_kind(found, kind) if name in (None, one["metadata"]["name"]))


def _settings(found):
    return next(one for one in of_kind(found, "ConfigMap") if "dashboards" not in one["metadata"]["name"])


SEEDED = {
    "root user": (policies.restricted, lambda found: _pod(found)[0]["securityContext"].update(runAsNonRoot=False)),
    "writable root": (policies.restricted, lambda found: _pod(found)[1]["securityContext"].update(readOnlyRootFilesystem=False)),
    "service account token": (policies.restricted, lambda found: _pod(found, "whyflag-retrain")[0].pop("automountServiceAccountToken")),
    "no memory limit": (policies.resources, lambda found: _pod(found)[1]["resources"].pop("limits")),
    "CPU limit": (policies.resources, lambda found: _pod(found)[1]["resources"]["limits"].update(cpu="1")),
    "no readiness probe": (policies.probes, lambda found: _pod(found)[1].pop("readinessProbe")),
    "impatient startup": (policies.probes, lambda found: _pod(found)[1]["startupProbe"].update(failureThreshold=3)),
    "no budget": (policies.disruptions, lambda found: found.remove(_named(found, "PodDisruptionBudget", "whyflag-score"))),
    "no spread": (policies.disruptions, lambda found: _pod(found)[0].pop("topologySpreadConstraints")),
    "replicas against KEDA": (policies.disruptions, lambda found: _named(found, "Deployment", "whyflag-score")["spec"].update(replicas=3)),
    "PAN key for the explainer": (
        policies.secrets,
        lambda found: _named(found, "ExternalSecret", "whyflag-explain")["spec"]["data"].append({"secretKey": "WHYFLAG_PAN_KEY"}),
    ),
    "secret of another": (
        policies.secrets, lambda found: _pod(found)[1]["envFrom"].append({"secretRef": {"name": "whyflag-console"}}),
    ),
    "misspelt variable": (policies.secrets, lambda found: _pod(found)[1]["env"].append({"name": "WHYFLAG_BUNDEL", "value": "x"})),
    "misspelt setting": (policies.settings, lambda found: _settings(found)["data"].update(WHYFLAG_COLOUR="red")),
    "missing config map": (policies.references, lambda found: _pod(found)[1]["envFrom"][0]["configMapRef"].update(name="other")),
    "missing secret": (policies.references, lambda found: found.remove(_named(found, "ExternalSecret", "whyflag-score"))),
    "image without tag": (policies.images, lambda found: _pod(found)[1].update(image="registry.example.org/whyflag-score")),
    "latest image": (policies.images, lambda found: _pod(found)[1].update(image="registry.example.org/whyflag-score:latest")),
    "no default deny": (policies.network, lambda found: found.remove(_named(found, "NetworkPolicy", "whyflag-default-deny"))),
    "scorer reaches the database": (
        policies.network,
        lambda found: _named(found, "NetworkPolicy", "whyflag-postgresql")["spec"]["podSelector"].pop("matchExpressions"),
    ),
    "scale to zero": (policies.scaling, lambda found: _named(found, "ScaledObject")["spec"].update(minReplicaCount=0)),
    "idle consumers": (
        policies.scaling,
        lambda found: _named(found, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(limitToPartitionsWithLag="false"),
    ),
    "number in a trigger": (
        policies.scaling, lambda found: _named(found, "ScaledObject")["spec"]["triggers"][0]["metadata"].update(lagThreshold=5),
    ),
    "more pods than partitions": (policies.scaling, lambda found: _named(found, "ScaledObject")["spec"].update(maxReplicaCount=13)),
    "topic of no cluster": (policies.kafka, lambda found: _named(found, "KafkaTopic")["metadata"].pop("labels")),
    "one replica": (policies.kafka, lambda found: _named(found, "KafkaTopic")["spec"].update(replicas=1)),
}  # fmt: skip


@pytest.mark.parametrize("name", SEEDED)
def test_each_policy_catches_a_seeded_violation(name):
    policy, seed = SEEDED[name]
    found = copy.deepcopy(OVERLAYS["prod"])
    seed(found)
    assert list(policy(found)), f"{policy.__name__} misses: {name}"


def test_every_policy_has_a_seeded_violation():
    assert {policy for policy, _ in SEEDED.values()} == set(POLICIES)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_native_manifests_follow_the_schemas_of_kubernetes(overlay):
    checked = [one for one in OVERLAYS[overlay] if one["apiVersion"] in NATIVE]
    assert len(checked) >= 10
    for one in checked:
        kubernetes_validate.validate(one, "1.31", strict=True)


def test_every_program_runs_a_valid_command():
    for name, _, _, container in pods(OVERLAYS["prod"] + OVERLAYS["dev"]):
        words = [word for word in container["args"] if not word.startswith("-")]
        options = [word.split("=")[0] for word in container["args"] if word.startswith("-")]
        done = subprocess.run([sys.executable, "-m", "cli.main", *words, "--help"], capture_output=True, text=True)
        assert done.returncode == 0, (name, done.stderr)
        assert all(option in done.stdout for option in options), name


def test_regular_jobs_are_restricted_like_all_others():
    found = OVERLAYS["prod"]
    pod, container = _pod(found)
    for job in of_kind(found, "CronJob"):
        other, own = _pod(found, job["metadata"]["name"])
        assert own["securityContext"] == container["securityContext"]
        for field in ("securityContext", "automountServiceAccountToken", "enableServiceLinks"):
            assert pod[field] == other[field]
        for field in ("volumeMounts", "volumes"):
            shared = [one for one in (container | pod)[field] if one["name"] in ("tmp", "files")]
            assert len(shared) == 2
            assert all(one in (own | other)[field] for one in shared)


def test_generated_manifests_are_fresh():
    for path, content in manifests().items():
        assert path.read_text() == content, f"{path} is out of date: run `make reference`"


@pytest.mark.system
def test_rendered_manifests_are_fresh():
    for path, content in rendered(needs("kubectl")).items():
        assert path.read_text() == content, f"{path} is out of date: run `python -m k8s.generate --render`"
