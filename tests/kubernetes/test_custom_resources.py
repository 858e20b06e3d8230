"""Custom resources follow the schemas of the operators' own releases. Each kind is also tried with an error, which must be found."""

import copy

import pytest
from jsonschema import Draft7Validator

from tests.conftest import needs
from tests.kubernetes.schemas import obtain, schemas
from tests.kubernetes.test_policies import NATIVE, OVERLAYS

pytestmark = pytest.mark.system

CUSTOM = [one for one in OVERLAYS["prod"] if one["apiVersion"] not in NATIVE]
WRONG = {
    "ScaledObject": lambda spec: spec.update(minReplicaCount="one"),
    "TriggerAuthentication": lambda spec: spec["secretTargetRef"][0].pop("key"),
    "PodMonitor": lambda spec: spec["podMetricsEndpoints"][0].update(interval="often"),
    "PrometheusRule": lambda spec: spec["groups"][0]["rules"][0].update(expression="up"),
    "ExternalSecret": lambda spec: spec["target"].update(creationPolicy="Own"),
    "Kafka": lambda spec: spec["kafka"]["listeners"][0].update(type="external"),
    "KafkaNodePool": lambda spec: spec.update(roles=["zookeeper"]),
    "KafkaTopic": lambda spec: spec.update(partitions="many"),
    "KafkaUser": lambda spec: spec["authentication"].update(type="scram-sha-256"),
}


@pytest.fixture(scope="module")
def known():
    return schemas(obtain(needs("go"), needs("mvn")))


def errors(known, manifest):
    return [error.message for error in Draft7Validator(known[manifest["apiVersion"], manifest["kind"]]).iter_errors(manifest)]


def test_every_custom_resource_follows_its_schema(known):
    assert {one["kind"] for one in CUSTOM} == set(WRONG)
    for one in CUSTOM:
        assert errors(known, one) == [], (one["kind"], one["metadata"]["name"])


@pytest.mark.parametrize("kind", WRONG)
def test_an_error_in_a_custom_resource_is_found(known, kind):
    wrong = copy.deepcopy(next(one for one in CUSTOM if one["kind"] == kind))
    WRONG[kind](wrong["spec"])
    assert errors(known, wrong)
