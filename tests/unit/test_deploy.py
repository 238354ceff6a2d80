"""What deploy/ and consumers/ claim, held by reading the files: no Docker is needed for it."""

import ast
import json
import re
import tomllib
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from packaging.requirements import Requirement

from bridge.simulated_engine.bpmn import read_bpmn
from deploy.local.demo_bridge import WORKERS, bridge_toml
from deploy.local.demo_cases import CASES, TOPICS
from deploy.local.demo_parts import Address
from tests.support import dockerfile

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
BPMNDI = "{http://www.omg.org/spec/BPMN/20100524/DI}"
CAMUNDA = "{http://camunda.org/schema/1.0/bpmn}"
DC = "{http://www.omg.org/spec/DD/20100524/DC}"
DI = "{http://www.omg.org/spec/DD/20100524/DI}"
PROCESSES = sorted((DEPLOY / "processes").glob("*.bpmn"))
HELPED = ROOT / "consumers" / "python" / "helper_worker.py"  # leaves all of this to the helper
SCRIPTS = sorted(set((ROOT / "consumers" / "python").glob("*.py")) - {HELPED})

each_process = pytest.mark.parametrize("file", PROCESSES, ids=lambda file: file.stem)
each_worker = pytest.mark.parametrize("file", SCRIPTS, ids=lambda file: file.stem)


def diagram(file: Path) -> tuple[Xml.Element, Xml.Element]:
    """The process and the plane of its diagram."""
    root = Xml.parse(file).getroot()
    process, plane = root.find(f"{BPMN}process"), root.find(f".//{BPMNDI}BPMNPlane")
    assert process is not None
    assert plane is not None
    return process, plane


def boxes(plane: Xml.Element) -> dict[str | None, tuple[float, ...]]:
    """x, y, width and height of each drawn node, by its id."""
    found = {}
    for shape in plane.findall(f"{BPMNDI}BPMNShape"):
        bounds = shape.find(f"{DC}Bounds")
        assert bounds is not None
        sides = (bounds.get("x"), bounds.get("y"), bounds.get("width"), bounds.get("height"))
        found[shape.get("bpmnElement")] = tuple(float(side or "nan") for side in sides)
    return found


@each_process
def test_a_process_runs_on_the_simulated_engine_under_its_file_s_name(file: Path) -> None:
    """The demo must run without Java, and a process is looked for under its file's name."""
    (process,) = read_bpmn(file.read_bytes(), file.name)

    assert process.key == file.stem
    topics = [node.topic for node in process.nodes.values() if node.topic]
    assert topics == [TOPICS[file.stem]]


@each_process
def test_every_node_and_flow_is_drawn(file: Path) -> None:
    """A modeler shows only what has coordinates; a node without them is invisible there."""
    process, plane = diagram(file)
    flows = {one.get("id") for one in process.findall(f"{BPMN}sequenceFlow")}
    nodes = {one.get("id") for one in process if one.get("id")} - flows

    assert plane.get("bpmnElement") == process.get("id")
    assert set(boxes(plane)) == nodes
    edges = [edge.get("bpmnElement") for edge in plane.findall(f"{BPMNDI}BPMNEdge")]
    assert sorted(map(str, edges)) == sorted(map(str, flows))


@each_process
def test_every_drawn_flow_joins_the_nodes_that_it_names(file: Path) -> None:
    """An edge that ends in the void looks like another process than the one that runs."""
    process, plane = diagram(file)
    flows = {one.get("id"): one for one in process.findall(f"{BPMN}sequenceFlow")}
    drawn = boxes(plane)

    for edge in plane.findall(f"{BPMNDI}BPMNEdge"):
        flow = flows[edge.get("bpmnElement")]
        points = [
            (float(p.get("x", "")), float(p.get("y", ""))) for p in edge.iter(f"{DI}waypoint")
        ]
        ends = (flow.get("sourceRef"), points[0]), (flow.get("targetRef"), points[-1])
        for node, (x, y) in ends:
            left, top, width, height = drawn[node]
            assert left <= x <= left + width, (file.name, node)
            assert top <= y <= top + height, (file.name, node)


@each_process
def test_a_process_says_how_long_its_history_lives(file: Path) -> None:
    """Camunda 7.20 and later refuse a process without it."""
    process, _ = diagram(file)

    assert process.get(f"{CAMUNDA}historyTimeToLive")


def test_the_intended_endings_are_those_of_the_processes() -> None:
    """An ending that no process has could never be reached, and the demo could never pass."""
    for case in CASES:
        process, _ = diagram(DEPLOY / "processes" / f"{case.process}.bpmn")
        ends = {one.get("id") for one in process.findall(f"{BPMN}endEvent")}
        boundaries = {one.get("id") for one in process.findall(f"{BPMN}boundaryEvent")}

        assert case.ending.end in ends | {None}
        assert case.ending.boundary in boundaries | {None}


def test_every_topic_has_a_process_a_worker_and_its_settings() -> None:
    """A topic without one of the three waits for ever."""
    settings = tomllib.loads(
        bridge_toml(Address("http://x"), "amqp://x", Path("key"), "127.0.0.1:0")
    )
    consumed = {
        found.group(1)
        for file in SCRIPTS
        for found in re.finditer(r'(?:\.consume\(|"TASK_QUEUE", )"(\w[\w-]*)"', file.read_text())
    }

    assert {file.stem for file in PROCESSES} == TOPICS.keys()
    assert set(settings["topics"]) == set(TOPICS.values()) == consumed == WORKERS.keys()
    assert {file.name for file in SCRIPTS} == set(WORKERS.values())
    for topic, name in WORKERS.items():
        source = (ROOT / "consumers" / "python" / name).read_text()
        assert f'"{topic}"' in source


@each_worker
def test_a_worker_needs_nothing_but_pika(file: Path) -> None:
    """Samples are copied into projects that have neither the bridge nor its dependencies."""
    tree = ast.parse(file.read_text())
    imported = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }

    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert imported - {"json", "os", "signal", "threading", "time", "zlib"} == {"pika"}


@each_worker
def test_a_worker_keeps_to_the_contract(file: Path) -> None:
    """Manual acknowledgement after a confirmed, routable answer, and no declaration of its own."""
    source = file.read_text()

    assert "confirm_delivery()" in source
    assert "basic_qos(prefetch_count=" in source
    assert source.index("basic_publish(") < source.index("basic_ack(")
    assert re.search(r"basic_publish\(\"\", task\.reply_to, .*, (mandatory=)?True\)", source)
    assert "correlation_id=task.correlation_id" in source
    assert "_declare" not in source
    assert "auto_ack" not in source


def test_the_image_runs_as_a_numeric_user_who_is_not_root() -> None:
    """Kubernetes checks runAsNonRoot against the image's user, and can read numbers only."""
    users = [rest for name, rest in dockerfile.stages()[-1] if name == "USER"]

    assert len(users) == 1
    user, _, group = users[0].partition(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_needs_no_shell_at_run_time() -> None:
    """A shell as process 1 swallows SIGTERM: the bridge would be killed instead of draining."""
    stage = dict(dockerfile.stages()[-1])

    assert isinstance(json.loads(stage["ENTRYPOINT"]), list)
    assert isinstance(json.loads(stage["CMD"]), list)
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert "RUN" not in stage
    assert stage.get("HEALTHCHECK", "CMD [").split("CMD ")[1].startswith("[")


def test_what_the_image_copies_exists_and_is_not_ignored() -> None:
    """A missing or ignored path is found only when somebody builds, long after the rename."""
    for path in dockerfile.copied():
        assert (ROOT / path).exists(), path
        assert dockerfile.is_let_in(path), path


def test_every_stage_has_the_same_python() -> None:
    """The environment is copied from stage to stage: another Python would not find its packages."""
    images = [stage[0][1].split()[0] for stage in dockerfile.stages()]
    (argument,) = [rest for name, rest in dockerfile.instructions() if name == "ARG"]

    assert images == ["${PYTHON_IMAGE}"] * 2
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+-slim-\w+", argument)


def test_the_image_s_label_is_the_version() -> None:
    """Whoever looks at a running image wants to know which one it is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    label = f'org.opencontainers.image.version="{project["version"]}"'
    assert label in dict(dockerfile.stages()[-1])["LABEL"]


def test_compose_opens_ports_on_loopback_only() -> None:
    """Every password in it is a default: nobody else may reach these ports."""
    ports = re.findall(r'- "([^"]*:\d+)"$', (DEPLOY / "compose.yaml").read_text(), re.MULTILINE)

    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_the_lock_pins_what_the_project_needs_and_names_no_host() -> None:
    """Both the checkout's environment and the image are made with it as pip's constraints."""
    lines = (DEPLOY / "requirements.lock").read_text().splitlines()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"]]

    assert all(re.fullmatch(r"[\w.-]+==[\w.]+", line) for line in lines)
    pins = dict(line.lower().replace("_", "-").split("==") for line in lines)
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[requirement.name.lower()]), requirement


def test_continuous_integration_runs_what_a_developer_runs() -> None:
    """Two lists of commands drift apart; and a pipe or `||` would hide the exit code."""
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    commands = [line for line in lines if line and not line.startswith("#")]

    assert commands[0] == "set -euo pipefail"
    assert commands[-1] == "exec make test"
    assert not any("|" in line for line in commands)
