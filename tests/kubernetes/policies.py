"""Rules for the rendered manifests. Each function yields a sentence for each violation; ``test_policies.py`` seeds one for each."""

from collections.abc import Callable, Iterator
from typing import Any

from core.settings import Settings

Manifest = dict[str, Any]
Policy = Callable[[list[Manifest]], Iterator[str]]
SETTINGS = {f"WHYFLAG_{name.upper()}" for name in Settings.__struct_fields__}
HOLDERS_OF_THE_PAN_KEY = {"score", "archive", "retrain"}  # those who tokenise card numbers
KEDA_FIELDS = {
    "bootstrapServers", "consumerGroup", "topic", "lagThreshold", "activationLagThreshold", "limitToPartitionsWithLag", "offsetResetPolicy",
}  # fmt: skip
LONGEST_STABILISATION = 3_600  # seconds, a limit of Kubernetes


def of_kind(manifests: list[Manifest], *kinds: str) -> list[Manifest]:
    return [one for one in manifests if one["kind"] in kinds]


def name_of(manifest: Manifest) -> str:
    return manifest["metadata"]["name"]


def template_of(workload: Manifest) -> Manifest:
    spec = workload["spec"]
    return spec["jobTemplate"]["spec"]["template"] if workload["kind"] == "CronJob" else spec["template"]


def pods(manifests: list[Manifest]) -> Iterator[tuple[str, str, Manifest, Manifest]]:
    """Yield name, component, pod spec and container of each workload."""
    for workload in of_kind(manifests, "Deployment", "Job", "CronJob"):
        template = template_of(workload)
        (container,) = template["spec"]["containers"]
        yield name_of(workload), template["metadata"]["labels"]["app.kubernetes.io/component"], template["spec"], container


def restricted(manifests: list[Manifest]) -> Iterator[str]:
    for name, _, pod, container in pods(manifests):
        wanted = {
            "token": pod.get("automountServiceAccountToken") is False,
            "service links": pod.get("enableServiceLinks") is False,
            "user": pod.get("securityContext", {}).get("runAsNonRoot") is True,
            "seccomp": pod.get("securityContext", {}).get("seccompProfile") == {"type": "RuntimeDefault"},
            "context": container.get("securityContext")
            == {"allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}},
            "tmp": {"name": "tmp", "mountPath": "/tmp"} in container.get("volumeMounts", []),
        }
        yield from (f"{name}: {what} is not restricted" for what, holds in wanted.items() if not holds)


def resources(manifests: list[Manifest]) -> Iterator[str]:
    for name, _, _, container in pods(manifests):
        given = container.get("resources", {})
        if given.get("requests", {}).keys() != {"cpu", "memory"} or "memory" not in given.get("limits", {}):
            yield f"{name}: CPU and memory requests and a memory limit are needed"
        if "cpu" in given.get("limits", {}):
            yield f"{name}: a CPU limit throttles"


def probes(manifests: list[Manifest]) -> Iterator[str]:
    for deployment in of_kind(manifests, "Deployment"):
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        for kind, path in (("startup", "/live"), ("liveness", "/live"), ("readiness", "/ready")):
            if container.get(f"{kind}Probe", {}).get("httpGet") != {"path": path, "port": "metrics"}:
                yield f"{name_of(deployment)}: the {kind} probe must ask {path}"
        startup = container.get("startupProbe", {})
        if startup.get("periodSeconds", 10) * startup.get("failureThreshold", 3) < 60:
            yield f"{name_of(deployment)}: a start on a busy node takes up to a minute"


def disruptions(manifests: list[Manifest]) -> Iterator[str]:
    budgets = {str(one["spec"]["selector"]["matchLabels"]) for one in of_kind(manifests, "PodDisruptionBudget")}
    scaled = {one["spec"]["scaleTargetRef"]["name"] for one in of_kind(manifests, "ScaledObject")}
    for deployment in of_kind(manifests, "Deployment"):
        name, spec = name_of(deployment), deployment["spec"]
        if str(spec["selector"]["matchLabels"]) not in budgets:
            yield f"{name}: no disruption budget selects its pods"
        if (name in scaled or spec.get("replicas", 1) > 1) and not spec["template"]["spec"].get("topologySpreadConstraints"):
            yield f"{name}: its pods may all run on one node"
        if name in scaled and "replicas" in spec:
            yield f"{name}: the number of pods is KEDA's to set"


def secrets(manifests: list[Manifest]) -> Iterator[str]:
    for name, component, _, container in pods(manifests):
        for source in container.get("envFrom", []):
            if "secretRef" in source and source["secretRef"]["name"] != f"whyflag-{component}":
                yield f"{name}: reads the secret of another program"
        for variable in container.get("env", []):
            if variable["name"] not in SETTINGS:
                yield f"{name}: {variable['name']} is not a setting"
    for secret in of_kind(manifests, "ExternalSecret"):
        component, keys = name_of(secret).removeprefix("whyflag-"), {one["secretKey"] for one in secret["spec"]["data"]}
        if "WHYFLAG_PAN_KEY" in keys and component not in HOLDERS_OF_THE_PAN_KEY:
            yield f"{name_of(secret)}: does not need the PAN key"
        if component != "keda" and not keys <= SETTINGS:
            yield f"{name_of(secret)}: {keys - SETTINGS} are not settings"


def settings(manifests: list[Manifest]) -> Iterator[str]:
    for one in of_kind(manifests, "ConfigMap"):
        if "dashboards" not in name_of(one) and not one["data"].keys() <= SETTINGS:
            yield f"{name_of(one)}: {one['data'].keys() - SETTINGS} are not settings"


def references(manifests: list[Manifest]) -> Iterator[str]:
    """Secrets are given by an operator or by hand, so they are checked only where external secrets are used."""
    maps = {name_of(one) for one in of_kind(manifests, "ConfigMap")}
    given = {one["spec"]["target"]["name"] for one in of_kind(manifests, "ExternalSecret")}
    for name, _, _, container in pods(manifests):
        for source in container.get("envFrom", []):
            if "configMapRef" in source and source["configMapRef"]["name"] not in maps:
                yield f"{name}: there is no config map {source['configMapRef']['name']}"
            if given and "secretRef" in source and source["secretRef"]["name"] not in given:
                yield f"{name}: there is no secret {source['secretRef']['name']}"
    services = {name_of(one) for one in of_kind(manifests, "Service")}
    for ingress in of_kind(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            if {path["backend"]["service"]["name"] for path in rule["http"]["paths"]} - services:
                yield f"{name_of(ingress)}: leads to no service"


def images(manifests: list[Manifest]) -> Iterator[str]:
    for name, _, _, container in pods(manifests):
        tag = container["image"].rpartition("/")[2].partition(":")[2]
        if "/" in container["image"] and (not tag or tag == "latest"):
            yield f"{name}: the image {container['image']} has no version"


def _selects(policy: Manifest, labels: dict[str, str]) -> bool:
    selector = policy["spec"]["podSelector"]
    if not selector.get("matchLabels", {}).items() <= labels.items():
        return False
    for one in selector.get("matchExpressions", []):
        if (labels.get(one["key"]) in one["values"]) is not (one["operator"] == "In"):
            return False
    return True


def network(manifests: list[Manifest]) -> Iterator[str]:
    policies = of_kind(manifests, "NetworkPolicy")
    if not policies:
        return
    keys = {name_of(one): {data["secretKey"] for data in one["spec"]["data"]} for one in of_kind(manifests, "ExternalSecret")}
    for workload in of_kind(manifests, "Deployment", "Job", "CronJob"):
        labels = template_of(workload)["metadata"]["labels"]
        component, own = labels["app.kubernetes.io/component"], [one for one in policies if _selects(one, labels)]
        if not any(set(one["spec"]["policyTypes"]) == {"Ingress", "Egress"} and len(one["spec"]) == 2 for one in own):
            yield f"{name_of(workload)}: everything is allowed"
        ports = {port["port"] for one in own for rule in one["spec"].get("egress", []) for port in rule.get("ports", [])}
        for port, needs in ((5432, "WHYFLAG_DATABASE"), (9093, "WHYFLAG_KAFKA_PASSWORD")):
            if (port in ports) is not (needs in keys.get(f"whyflag-{component}", set())):
                yield f"{name_of(workload)}: port {port} and {needs} do not fit"


def scaling(manifests: list[Manifest]) -> Iterator[str]:
    partitions = {name_of(one): one["spec"]["partitions"] for one in of_kind(manifests, "KafkaTopic")}
    for scaled in of_kind(manifests, "ScaledObject"):
        name, spec = name_of(scaled), scaled["spec"]
        (trigger,) = spec["triggers"]
        fields = trigger["metadata"]
        down = spec["advanced"]["horizontalPodAutoscalerConfig"]["behavior"]["scaleDown"]
        if spec["minReplicaCount"] < 1:
            yield f"{name}: with no pod, the first record waits for a start"
        if not fields.keys() <= KEDA_FIELDS or not all(isinstance(value, str) for value in fields.values()):
            yield f"{name}: the trigger's fields are misspelt or no strings"
        if fields.get("limitToPartitionsWithLag") != "true" or int(fields.get("activationLagThreshold", "0")) <= 0:
            yield f"{name}: would start pods for partitions without lag"
        if spec["maxReplicaCount"] > partitions.get(fields["topic"], spec["maxReplicaCount"]):
            yield f"{name}: more pods than partitions"
        if not 600 <= down["stabilizationWindowSeconds"] <= LONGEST_STABILISATION:
            yield f"{name}: shrinks too soon, or later than Kubernetes accepts"


def kafka(manifests: list[Manifest]) -> Iterator[str]:
    clusters = {name_of(one) for one in of_kind(manifests, "Kafka")}
    for one in of_kind(manifests, "KafkaTopic", "KafkaUser", "KafkaNodePool"):
        if one["metadata"].get("labels", {}).get("strimzi.io/cluster") not in clusters:
            yield f"{one['kind']} {name_of(one)}: belongs to no cluster"
    for topic in of_kind(manifests, "KafkaTopic"):
        if topic["spec"]["replicas"] < 3 or topic["spec"]["config"].get("min.insync.replicas") != "2":
            yield f"topic {name_of(topic)}: would not survive the loss of a broker"


POLICIES: tuple[Policy, ...] = (
    restricted, resources, probes, disruptions, secrets, settings, references, images, network, scaling, kafka,
)  # fmt: skip
