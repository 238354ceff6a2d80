"""deploy/compose.yaml as `docker compose` reads it; no Docker engine is needed for it."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bridge.settings import load
from deploy.local.demo_bridge import WORKERS
from deploy.local.demo_cases import TOPICS
from deploy.local.programs import PartError
from tests.conftest import missing
from tests.support import deploy_readme, deploy_tools

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
GRACE_SECONDS = {"30s": 30}

pytestmark = pytest.mark.timeout(deploy_tools.BUILD_LIMIT_S)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    try:
        return deploy_tools.compose(DEPLOY / "compose.yaml")
    except PartError as error:
        missing(error)
        raise


@pytest.fixture(scope="module")
def services(project: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = project["services"]
    return found


def test_it_waits_for_health_only_where_health_is_checked(services: dict[str, Any]) -> None:
    """`service_healthy` on a service without a health check never comes true."""
    awaited = {
        other
        for service in services.values()
        for other, how in service.get("depends_on", {}).items()
        if how["condition"] == "service_healthy"
    }

    assert awaited == {"engine", "rabbitmq", "bridge"}
    assert all("healthcheck" in services[name] for name in awaited)


def test_every_port_is_on_loopback_and_taken_once(services: dict[str, Any]) -> None:
    """Every password in it is a default; and a replica without a port of its own does not start."""
    ports = [port for service in services.values() for port in service.get("ports", [])]
    published = [number for port in ports for number in spread(port["published"])]

    assert {port["host_ip"] for port in ports} == {"127.0.0.1"}
    assert len(published) == len(set(published))
    (status,) = services["bridge"]["ports"]
    assert len(spread(status["published"])) == services["bridge"]["deploy"]["replicas"] == 2


def spread(published: str) -> list[int]:
    first, _, last = published.partition("-")
    return list(range(int(first), int(last or first) + 1))


def test_what_it_mounts_and_builds_exists(services: dict[str, Any]) -> None:
    """Docker makes an empty folder of a missing path, and the engine then deploys nothing."""
    sources = [
        Path(volume["source"])
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume["type"] == "bind"
    ]

    assert {ROOT / "consumers/python", DEPLOY / "processes", DEPLOY / "prometheus"} <= set(sources)
    assert all(path.is_dir() for path in sources)
    build = services["bridge"]["build"]
    assert Path(build["context"], build["dockerfile"]) == DEPLOY / "Dockerfile"


def test_the_bridges_take_their_settings(
    services: dict[str, Any], project: dict[str, Any], tmp_path: Path
) -> None:
    """A process deployed beside a bridge that does not know its topic would hang; and the key is
    where the settings look for it.
    """
    environment = dict(services["bridge"]["environment"])
    (secret,) = services["bridge"]["secrets"]
    assert environment["BRIDGE_TOKEN_KEY_FILE"] == secret["target"]
    assert secret["source"] in project["secrets"]
    key = tmp_path / "token-key"
    key.write_bytes(os.urandom(32))

    settings = load(None, environment | {"BRIDGE_TOKEN_KEY_FILE": str(key)})

    assert set(settings.topics) == set(TOPICS.values())
    assert settings.broker.management_url is not None
    # A secret that is no file cannot be put into a container that may not be written to.
    assert set(project["secrets"][secret["source"]]) == {"name", "file"}
    grace = GRACE_SECONDS[services["bridge"]["stop_grace_period"]]
    assert grace > settings.stop_grace.total_seconds()


def test_the_key_is_made_as_the_readme_says(project: dict[str, Any], tmp_path: Path) -> None:
    """The container's user has to read it, and nobody else on the machine can get to it."""
    making, up, _ = deploy_readme.commands("Compose")
    (tmp_path / "deploy").mkdir()

    subprocess.run(["sh", "-euc", making], cwd=tmp_path, check=True, timeout=60)

    key = tmp_path / "deploy" / "secrets" / "token-key"
    assert str(DEPLOY / key.relative_to(tmp_path / "deploy")) in json.dumps(project["secrets"])
    assert (key.parent.stat().st_mode & 0o777, key.stat().st_mode & 0o004) == (0o700, 0o004)
    settings = load(None, {"BRIDGE_TOPICS": "a", "BRIDGE_TOKEN_KEY_FILE": str(key)})
    assert settings.token_key_file == key
    assert up == "docker compose -f deploy/compose.yaml up --build"


def test_every_topic_has_its_worker(services: dict[str, Any]) -> None:
    """A queue without a consumer fills, and the newcomer sees nothing end."""
    commands = [service.get("command") for service in services.values()]
    scripts = [Path(command[0]).name for command in commands if command]

    assert sorted(scripts) == sorted(WORKERS.values())
    assert all((ROOT / "consumers/python" / script).exists() for script in scripts)


@pytest.mark.parametrize("name", ["bridge", "payment-worker", "prometheus"])
def test_what_is_ours_has_no_rights(services: dict[str, Any], name: str) -> None:
    """Whoever breaks into it finds nothing to write to and nothing to become."""
    service = services[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_prometheus_and_grafana_find_their_files(services: dict[str, Any]) -> None:
    """Both start without them too, and show nothing."""
    targets = {
        volume["target"]: volume["source"]
        for name in ("prometheus", "grafana")
        for volume in services[name]["volumes"]
    }

    assert Path(targets["/etc/prometheus"], "prometheus.yml").exists()
    provisioning = Path(targets["/etc/grafana/provisioning"])
    assert list(provisioning.glob("datasources/*.yaml"))
    (provider,) = provisioning.glob("dashboards/*.yaml")
    folder = "/var/lib/grafana/dashboards"
    assert f"path: {folder}\n" in provider.read_text()
    assert list(Path(targets[folder]).glob("*.json"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (("read_only: true", "read_onli: true"), "read_onli"),
        (("condition: service_healthy", "condition: service_happy"), "condition value must be"),
        (("    bridge: # declares", "    brigde: # declares"), "brigde"),
        (("      - token-key\n", "      - token-kay\n"), "token-kay"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_reader_would_notice(
    project: dict[str, Any], change: tuple[str, str], complaint: str, tmp_path: Path
) -> None:
    """A reader that takes everything would prove nothing of what it took."""
    assert project
    text = (DEPLOY / "compose.yaml").read_text()
    assert change[0] in text
    broken = tmp_path / "compose.yaml"
    broken.write_text(text.replace(*change))

    with pytest.raises(deploy_tools.RefusedError, match=complaint):
        deploy_tools.compose(broken)
