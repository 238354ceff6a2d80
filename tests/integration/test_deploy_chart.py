"""The Helm chart, rendered by Helm's engine and held against the schemas of what reads it."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bridge import __version__
from bridge.settings import load
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.support import deploy_readme, deploy_tools

DEPLOY = Path(__file__).parents[2] / "deploy"
CHART = DEPLOY / "helm" / "external-task-bridge"
SECRETS = "/run/secrets/bridge"
CONFIG = f"""\
worker_id = "shop"
stop_grace = "1h"    # the chart's wins: the pod would be killed long before
[engine]
url = "http://engine:8080/engine-rest"
[broker]
url = "amqp://rabbitmq:5672/%2F"
username = "bridge"
password_file = "{SECRETS}/broker-password"
[status]
listen = "127.0.0.1:1"
[topics.payment-processing]
variables = ["amount", "currency"]
"""
LEAST: dict[str, Any] = {"config": CONFIG, "secretName": "bridge"}
WORKER = {"name": "payment-worker", "queue": "payment-processing"}
MOST: dict[str, Any] = LEAST | {
    "replicas": 3,
    "image": {"repository": "registry.shop/bridge", "tag": "1.2.3"},
    "imagePullSecrets": [{"name": "registry"}],
    "stopGraceSeconds": 45,
    "recreate": True,
    "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    "podAnnotations": {"shop/owner": "payments"},
    "podLabels": {"shop/tier": "back"},
    "nodeSelector": {"disk": "none"},
    "tolerations": [{"key": "batch", "operator": "Exists"}],
    "affinity": {"nodeAffinity": {}},
    "monitoring": {
        "podMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "rules": {"enabled": True, "labels": {"release": "prometheus"}},
    },
    "networkPolicy": {"enabled": True, "ingressFrom": [{"namespaceSelector": {}}]},
    "keda": {"secretName": "rabbitmq", "workers": [{**WORKER, "min": 1, "max": 5}, WORKER]},
}

pytestmark = pytest.mark.timeout(deploy_tools.BUILD_LIMIT_S)


def render(values: dict[str, Any], release: str = "bridge") -> dict[str, Any]:
    """The only object of each file; of `scaledobjects.yaml` all."""
    try:
        found = deploy_tools.chart(CHART, values, release)
    except PartError as error:
        missing(error)
        raise
    made: dict[str, Any] = {file: objects[0] for file, objects in found["manifests"].items()}
    made["all"] = [one for objects in found["manifests"].values() for one in objects]
    made["notes"] = found["notes"]
    return made


@pytest.fixture(scope="module")
def least() -> dict[str, Any]:
    return render(LEAST)


@pytest.fixture(scope="module")
def most() -> dict[str, Any]:
    return render(MOST)


def pod(rendered: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered["deployment.yaml"]["spec"]["template"]["spec"]
    return found


def container(rendered: dict[str, Any]) -> dict[str, Any]:
    (found,) = pod(rendered)["containers"]
    assert isinstance(found, dict)
    return found


def kinds(rendered: dict[str, Any]) -> set[str]:
    return {one["kind"] for one in rendered["all"]}


# -- the formats ---------------------------------------------------------------------------------


def test_what_is_optional_is_left_out(least: dict[str, Any], most: dict[str, Any]) -> None:
    """A cluster without KEDA or the Prometheus operator refuses what is theirs."""
    always = {"ConfigMap", "Deployment", "PodDisruptionBudget"}
    optional = {"PodMonitor", "PrometheusRule", "NetworkPolicy", "TriggerAuthentication"}

    assert kinds(least) == always
    assert kinds(most) == always | optional | {"ScaledObject"}


@pytest.mark.parametrize("values", [LEAST, MOST], ids=["least", "most"])
def test_the_manifests_keep_to_the_schemas(values: dict[str, Any]) -> None:
    """What an API server refuses is found at an upgrade, at the worst of times."""
    hold(render(values)["all"])


def hold(manifests: list[dict[str, Any]]) -> None:
    try:
        deploy_tools.hold_against_kubernetes(manifests)
    except PartError as error:
        missing(error)
        raise


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [
        ("Deployment", {"spec": {"replicas": "two"}}),
        ("PodDisruptionBudget", {"spec": {"selector": []}}),
        ("ScaledObject", {"spec": {}}),
        ("PodMonitor", {"spec": {"podMetricsEndpoints": [{"port": 1}]}}),
        ("PrometheusRule", {"spec": {"groups": [{"rules": [{}]}]}}),
    ],
)
def test_the_schemas_would_notice(most: dict[str, Any], kind: str, wrong: dict[str, Any]) -> None:
    """A check that lets everything through would prove nothing."""
    right = next(one for one in most["all"] if one["kind"] == kind)

    with pytest.raises(deploy_tools.RefusedError, match=kind):
        hold([{**right, **wrong}])


def test_an_unknown_field_is_refused(tmp_path: Path) -> None:
    """A server drops `readOnlyRootFileSystem`, and the file system is writable."""
    copy = copy_of_chart(tmp_path, "readOnlyRootFilesystem", "readOnlyRootFileSystem")

    with pytest.raises(deploy_tools.RefusedError, match="unknown field"):
        deploy_tools.chart(copy, LEAST)


def copy_of_chart(folder: Path, old: str, new: str) -> Path:
    copy = folder / CHART.name
    for file in CHART.rglob("*"):
        if file.is_file():
            (copy / file.relative_to(CHART)).parent.mkdir(parents=True, exist_ok=True)
            text = file.read_text()
            (copy / file.relative_to(CHART)).write_text(text.replace(old, new))
    return copy


# -- what it is given ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({}, "config: the settings are missing"),
        ({"config": CONFIG}, "secretName: the Secret with the key `token-key` is missing"),
        (LEAST | {"keda": {"workers": [WORKER]}}, "keda.secretName: .* is missing"),
        (LEAST | {"replica": 3}, "replica"),
        (LEAST | {"monitoring": {"podMonitor": {"enable": True}}}, "enable"),
        (LEAST | {"env": [{"name": "BRIDGE_STOP_GRACE", "value": "1h"}]}, "env"),
    ],
)
def test_wrong_values_are_refused(values: dict[str, Any], complaint: str) -> None:
    """A misspelt key would otherwise change nothing, and say nothing."""
    with pytest.raises(deploy_tools.RefusedError, match=complaint):
        render(values)


def test_the_settings_arrive_word_for_word(least: dict[str, Any]) -> None:
    """Whatever the file holds: it is the same one that `check` has passed."""
    example = (DEPLOY / "bridge.toml").read_text()

    assert least["configmap.yaml"]["data"] == {"bridge.toml": CONFIG}
    assert render(LEAST | {"config": example})["configmap.yaml"]["data"] == {"bridge.toml": example}


def test_the_bridge_takes_the_settings(least: dict[str, Any], tmp_path: Path) -> None:
    """With the chart's environment above the file, as it starts in the pod."""
    (tmp_path / "token-key").write_bytes(base64.b64encode(bytes(32)))
    (tmp_path / "broker-password").write_text("of the test")
    config = tmp_path / "bridge.toml"
    config.write_text(
        least["configmap.yaml"]["data"]["bridge.toml"].replace(SECRETS, str(tmp_path))
    )
    environment = {one["name"]: one["value"] for one in container(least)["env"]}
    there = {name: value.replace(SECRETS, str(tmp_path)) for name, value in environment.items()}

    settings = load(config, there)

    assert settings.token_key_file == tmp_path / "token-key"
    assert settings.status.address == ("0.0.0.0", 9464)
    assert settings.stop_grace.total_seconds() == 20
    assert environment["BRIDGE_TOKEN_KEY_FILE"].startswith(f"{SECRETS}/")


def test_the_readme_s_commands_make_what_the_pod_wants() -> None:
    """The first install is typed word for word; a key that is not there is a pod that waits."""
    *_, secret, install = map(shlex.split, deploy_readme.commands("Kubernetes"))
    values: dict[str, Any] = {"config": CONFIG}
    for option, word in pairwise(install):
        if option == "--set":
            path, _, value = word.partition("=")
            *tables, key = path.split(".")
            inner = values
            for table in tables:
                inner = inner.setdefault(table, {})
            inner[key] = value

    rendered = render(values)

    assert (DEPLOY.parent / install[3]).resolve() == CHART
    assert "--set-file config=bridge.toml" in " ".join(install)
    (named,) = [one["secret"] for one in pod(rendered)["volumes"] if "secret" in one]
    assert named["secretName"] == secret[4]
    keys = {word.removeprefix("--from-file=").split("=")[0] for word in secret[5:]}
    assert keys == {"token-key", "broker-password"}
    assert deploy_readme.commands("Kubernetes")[1] == f"docker push {container(rendered)['image']}"


def test_other_settings_roll_the_pods(least: dict[str, Any]) -> None:
    """A bridge reads its file at its start."""
    config = CONFIG + "max_in_flight = 5\n"

    annotations = render(LEAST | {"config": config})["deployment.yaml"]["spec"]["template"][
        "metadata"
    ]["annotations"]

    assert annotations == {"checksum/config": hashlib.sha256(config.encode()).hexdigest()}
    assert annotations not in [
        least["deployment.yaml"]["spec"]["template"]["metadata"]["annotations"]
    ]


# -- what it promises ----------------------------------------------------------------------------


def test_the_pod_keeps_to_the_restricted_standard(most: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    whole, own = pod(most)["securityContext"], container(most)["securityContext"]

    assert whole["runAsNonRoot"] is True
    assert whole["runAsUser"] > 0
    assert whole["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {kind for volume in pod(most)["volumes"] for kind in volume} == {
        "name",
        "configMap",
        "secret",
    }
    assert pod(most)["automountServiceAccountToken"] is False


def test_the_pod_s_user_is_the_image_s(least: dict[str, Any]) -> None:
    """Another user could not read what the image's may."""
    (user,) = [
        line.split()[1]
        for line in (DEPLOY / "Dockerfile").read_text().splitlines()
        if line.startswith("USER ")
    ]
    context = pod(least)["securityContext"]

    assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_it_is_asked_whether_it_lives_and_is_ready(least: dict[str, Any]) -> None:
    """By the paths that the status server has, at the port where it listens."""
    (port,) = container(least)["ports"]
    probes = {
        name: container(least)[f"{name}Probe"]["httpGet"] for name in ("liveness", "readiness")
    }

    assert port == {"name": "status", "containerPort": 9464}
    assert probes == {
        "liveness": {"path": "/live", "port": "status"},
        "readiness": {"path": "/ready", "port": "status"},
    }


@pytest.mark.parametrize("values", [LEAST, MOST], ids=["least", "most"])
def test_a_pod_is_given_more_time_than_the_bridge_takes(values: dict[str, Any]) -> None:
    """Killed in the middle of a stop it leaves tasks to their short locks: published twice."""
    rendered = render(values)
    environment = {one["name"]: one["value"] for one in container(rendered)["env"]}
    grace = int(environment["BRIDGE_STOP_GRACE"].removesuffix("s"))

    assert pod(rendered)["terminationGracePeriodSeconds"] >= grace + 5


def test_a_drained_node_takes_one_replica_at_a_time(least: dict[str, Any]) -> None:
    """Even while the engine is away and no replica is ready."""
    spec = least["poddisruptionbudget.yaml"]["spec"]

    assert spec["maxUnavailable"] == 1
    assert spec["unhealthyPodEvictionPolicy"] == "AlwaysAllow"


def test_every_selector_finds_the_pods(most: dict[str, Any]) -> None:
    """A budget, a monitor or a policy for no pod does nothing, silently."""
    labels = most["deployment.yaml"]["spec"]["template"]["metadata"]["labels"].items()
    (spread,) = pod(most)["topologySpreadConstraints"]
    selectors = [
        most["deployment.yaml"]["spec"]["selector"],
        most["poddisruptionbudget.yaml"]["spec"]["selector"],
        most["podmonitor.yaml"]["spec"]["selector"],
        most["networkpolicy.yaml"]["spec"]["podSelector"],
        spread["labelSelector"],
    ]

    assert all(one["matchLabels"].items() <= labels for one in selectors)
    assert all(one["matchLabels"] for one in selectors)


def test_all_replicas_stop_first_where_that_is_asked(
    least: dict[str, Any], most: dict[str, Any]
) -> None:
    """A change of `publish_window` must not meet a replica with the old one."""
    assert most["deployment.yaml"]["spec"]["strategy"] == {"type": "Recreate"}
    assert least["deployment.yaml"]["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_operator_gets_the_alerts_that_everybody_gets(most: dict[str, Any]) -> None:
    """One file, tested by promtool; and the job has the name that its expressions know."""
    rules = json.dumps(most["prometheusrule.yaml"]["spec"]["groups"])

    lines = (DEPLOY / "prometheus/rules.yml").read_text().splitlines()
    alerts = [line.split(": ")[1] for line in lines if line.lstrip().startswith("- alert: ")]
    assert alerts
    assert all(f'"alert": "{alert}"' in rules for alert in alerts)
    job = most["podmonitor.yaml"]["spec"]["jobLabel"]
    labels = most["deployment.yaml"]["spec"]["template"]["metadata"]["labels"]
    assert labels[job] == "external-task-bridge"


def test_keda_counts_what_workers_hold(most: dict[str, Any]) -> None:
    """Without the unacknowledged ones a worker busy with the last message would be taken away."""
    authentication, first, second = (
        one for one in most["all"] if one["apiVersion"].startswith("keda.sh/")
    )
    (trigger,) = second["spec"]["triggers"]

    assert trigger["metadata"] == {
        "protocol": "http",
        "mode": "QueueLength",
        "queueName": WORKER["queue"],
        "value": "20",
    }
    assert trigger["authenticationRef"] == {"name": authentication["metadata"]["name"]}
    assert authentication["spec"]["secretTargetRef"] == [
        {"parameter": "host", "name": "rabbitmq", "key": "host"}
    ]
    bounds = [(one["spec"]["minReplicaCount"], one["spec"]["maxReplicaCount"])
              for one in (first, second)]  # fmt: skip
    assert bounds == [(1, 5), (0, 10)]


def test_nobody_comes_in_who_is_not_named(most: dict[str, Any]) -> None:
    """An ingress rule with an empty `from` lets everybody in."""
    closed = render(LEAST | {"networkPolicy": {"enabled": True}})["networkpolicy.yaml"]["spec"]
    (rule,) = most["networkpolicy.yaml"]["spec"]["ingress"]

    assert closed["ingress"] == []
    assert set(closed["policyTypes"]) == {"Ingress", "Egress"}
    assert rule == {
        "from": [{"namespaceSelector": {}}],
        "ports": [{"port": 9464, "protocol": "TCP"}],
    }


def test_the_chart_is_of_the_program_s_version(least: dict[str, Any]) -> None:
    """Its version is the default tag of the image."""
    project = tomllib.loads((DEPLOY.parent / "pyproject.toml").read_text())["project"]

    assert project["version"] == __version__
    assert container(least)["image"] == f"external-task-bridge:{__version__}"
    assert "external-task-bridge:" in least["notes"]


@pytest.mark.parametrize(
    ("release", "name"),
    [("bridge", "bridge-external-task-bridge"), ("external-task-bridge", "external-task-bridge")],
)
def test_names_come_from_the_release(release: str, name: str) -> None:
    """Two releases in one namespace must not share an object."""
    assert render(LEAST, release)["deployment.yaml"]["metadata"]["name"] == name
