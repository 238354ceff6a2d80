"""The real parts of this machine: which way is chosen, and that what we start can be ended."""

import importlib
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer, ThreadingHTTPServer
from pathlib import Path

import pytest

from deploy.local import choice, engine_build, rabbitmq
from deploy.local import system as system_module
from deploy.local.choice import (
    Broker,
    Choice,
    Docker,
    Engine,
    Given,
    Install,
    Local,
    Nothing,
    choose,
)
from deploy.local.given import GivenBroker, GivenEngine
from deploy.local.programs import PartError, Program, free_port, last_lines, listens
from deploy.local.system import JAVA_MINIMUM, Part, System

FULL = System(rabbitmq=True, java=JAVA_MINIMUM, build_tools=True, docker=True, can_install=True)
PARTS: tuple[Part, ...] = ("broker", "engine")
Start = Callable[[str], Program]


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    """Answers 200 to every GET."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def start(tmp_path: Path) -> Start:
    def run(code: str) -> Program:
        return Program("the program", [sys.executable, "-c", code], log=tmp_path / "program.log")

    return run


@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("system", [System(), FULL])
def test_a_url_given_by_the_user_comes_before_everything(part: Part, system: System) -> None:
    """Whoever names a broker or an engine wants that one, even where we could start our own."""
    environment = {"AMQP_URL": "amqp://mine", "ENGINE_URL": "http://mine"}

    assert choose(part, system, environment) == Given(
        {"broker": "amqp://mine", "engine": "http://mine"}[part]
    )


@pytest.mark.parametrize(
    ("part", "system", "expected"),
    [
        ("broker", FULL, Local()),
        ("engine", FULL, Local()),
        ("broker", System(rabbitmq=True), Local()),
        ("broker", System(can_install=True, docker=True), Install(("rabbitmq-server",))),
        ("broker", System(docker=True), Docker()),
        ("engine", System(java=JAVA_MINIMUM, build_tools=True), Local()),
        ("engine", System(can_install=True), Install(("default-jdk-headless", "maven"))),
        ("engine", System(java=11, build_tools=True, docker=True), Docker()),
        ("engine", System(java=JAVA_MINIMUM, docker=True), Docker()),
    ],
)
def test_the_nearest_way_that_exists_is_taken(part: Part, system: System, expected: Choice) -> None:
    """Local programs start fastest and can be killed in tests; containers come last."""
    assert choose(part, system, {}) == expected


@pytest.mark.parametrize(
    ("java", "expected"), [(JAVA_MINIMUM, Local()), (0, Install(("default-jre-headless",)))]
)
def test_an_engine_that_is_built_needs_no_build_tools(java: int, expected: Choice) -> None:
    """A cache kept between runs must spare a machine the JDK and Maven."""
    system = System(java=java, built_engines=frozenset({"camunda"}), can_install=True)

    assert choose("engine", system, {}) == expected
    assert choose("engine", system, {}, "operaton") == Install(("default-jdk-headless", "maven"))


@pytest.mark.parametrize(
    ("has", "packages"),
    [
        (frozenset(), ("nodejs", "npm", "golang-go", "prometheus", "chromium")),
        (frozenset({"node", "npm", "promtool"}), ("golang-go", "chromium")),
        (frozenset({"node", "npm", "go", "promtool", "chromium"}), ()),
    ],
)
def test_what_only_the_tests_need_is_named(has: frozenset[str], packages: tuple[str, ...]) -> None:
    """Their tests fail in continuous integration without it, so it is installed like the parts; no
    part waits for it.
    """
    system = System(rabbitmq=True, java=JAVA_MINIMUM, build_tools=True, toolchains=has)

    assert system.lacks_toolchains() == packages
    assert system.lacks("broker") == system.lacks("engine") == ()


def test_a_toolchain_that_cannot_be_installed_keeps_no_part_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Node.js of another origin keeps Debian's npm out; RabbitMQ must come all the same."""
    asked: list[tuple[str, ...]] = []

    def install(packages: tuple[str, ...]) -> list[str]:
        asked.append(packages)
        if packages == ("npm",):
            raise PartError("npm: unmet dependencies")
        return []

    lacking = System(java=JAVA_MINIMUM, build_tools=True, can_install=True)
    monkeypatch.setattr(system_module, "look", lambda: lacking)
    monkeypatch.setattr(system_module, "install", install)
    monkeypatch.setattr(sys, "argv", ["system", "--install"])

    assert system_module.main() == 1

    rest = [("nodejs",), ("npm",), ("golang-go",), ("prometheus",), ("chromium",)]
    assert asked == [("rabbitmq-server",), *rest]
    assert "note: npm: unmet dependencies" in capsys.readouterr().out


@pytest.mark.parametrize("part", PARTS)
def test_an_empty_variable_counts_as_unset(part: Part) -> None:
    """`AMQP_URL= make test` is how a user switches a URL off."""
    assert choose(part, FULL, {"AMQP_URL": "", "ENGINE_URL": ""}) == Local()


@pytest.mark.parametrize(("part", "named"), [("broker", "rabbitmq-server"), ("engine", "maven")])
def test_where_nothing_is_to_be_had_the_cure_names_every_way(part: Part, named: str) -> None:
    """A user without rights must learn from one line what to type or to set."""
    chosen = choose(part, System(), {})

    assert isinstance(chosen, Nothing)
    for way in ("sudo apt-get install", named, "Docker", choice.URL_VARIABLE[part]):
        assert way in chosen.cure


def test_docker_parts_can_be_imported_without_a_warning() -> None:
    """A deprecation in testcontainers must show here, not first on a machine that needs Docker."""
    importlib.import_module("deploy.local.containers")


def test_parts_of_the_user_are_never_stopped(server: HTTPServer) -> None:
    """Ending somebody's broker because a test asked for it would be unforgivable."""
    port = server.server_port
    broker: Broker = GivenBroker(f"amqp://me:secret@127.0.0.1:{port}/%2F")
    engine: Engine = GivenEngine(f"http://127.0.0.1:{port}/engine-rest/")

    for end in (broker.stop, broker.kill, broker.restart, engine.stop, engine.kill, engine.restart):
        with pytest.raises(PartError, match="not ours to stop"):
            end()
    broker.close()
    engine.close()

    assert listens(port)
    assert not broker.controllable
    assert not engine.controllable


def test_addresses_of_a_given_broker_are_derived_from_its_url(server: HTTPServer) -> None:
    """One URL must be enough for tests that want a virtual host each."""
    place = f"127.0.0.1:{server.server_port}"
    broker = GivenBroker(f"amqp://me:secret@{place}/prod?heartbeat=5")

    assert broker.url_of("a/b") == f"amqp://me:secret@{place}/a%2Fb?heartbeat=5"
    assert broker.management_url == "http://me:secret@127.0.0.1:15672"
    assert GivenBroker(broker.url, "https://elsewhere").management_url == "https://elsewhere"


def test_a_given_part_that_does_not_answer_is_named_without_its_password() -> None:
    """The message must lead to the variable that is wrong, and may end up in a public CI log."""
    nowhere = f"me:secret@127.0.0.1:{free_port()}"

    with pytest.raises(PartError, match="AMQP_URL: nothing listens") as broker:
        GivenBroker(f"amqp://{nowhere}/%2F")
    with pytest.raises(PartError, match="ENGINE_URL: no engine") as engine:
        GivenEngine(f"http://{nowhere}/engine-rest")

    assert "secret" not in f"{broker.value} {engine.value}"


def test_a_program_that_ends_early_is_reported_with_the_end_of_its_log(start: Start) -> None:
    """The cause is in the program's own last lines; nobody should have to look for the file."""
    program = start("import sys; print('port in use'); sys.exit(3)")

    with pytest.raises(PartError, match=r"(?s)exit code 3 .*port in use"):
        program.wait_until(lambda: False, limit_s=30)


def test_a_program_that_never_gets_ready_is_ended(start: Start) -> None:
    """A start that failed must leave no process behind."""
    program = start("import time; time.sleep(60)")

    with pytest.raises(PartError, match="was not ready within"):
        program.wait_until(lambda: False, limit_s=0.1)

    assert not program.running


def test_a_program_deaf_to_sigterm_is_killed_after_its_grace(start: Start, tmp_path: Path) -> None:
    """`make down` and the tests must end whatever state a part is in."""
    ready = tmp_path / "ready"
    program = start(
        "import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"pathlib.Path({str(ready)!r}).touch(); time.sleep(60)"
    )
    program.wait_until(ready.exists, limit_s=30)

    program.stop(grace_s=0.2)

    assert program.exit_code == -signal.SIGKILL


def test_ending_a_program_twice_is_harmless(start: Start) -> None:
    """Tests kill a part in the middle, and its `with` block ends it again."""
    program = start("import time; time.sleep(60)")

    program.kill()
    program.stop(grace_s=1)
    program.kill()

    assert not program.running


def test_no_port_is_given_out_twice() -> None:
    """A node takes four ports at once, before it listens on any of them."""
    ports = [free_port() for _ in range(50)]

    assert len(set(ports)) == len(ports)
    assert not any(listens(port) for port in ports)


def test_a_port_of_another_process_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Test processes start nodes at the same moment: the second would not come up."""
    program = (
        "from deploy.local.programs import free_port\nprint(free_port(), flush=True)\ninput()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    ) as other:
        assert other.stdout is not None
        taken = int(other.stdout.readline())
        monkeypatch.setattr(random, "sample", lambda *_: [taken, taken])
        with pytest.raises(PartError, match="no free TCP port"):
            free_port()

        other.communicate("\n", timeout=20)

    assert free_port() == taken


def test_the_end_of_a_log_is_short_and_never_empty() -> None:
    """An error message shows the cause, not a thousand lines and not nothing."""
    assert last_lines("\n".join("abc"), 2) == "    b\n    c"
    assert "empty" in last_lines("")


def test_an_engine_is_built_again_only_when_its_project_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stale jar would test another engine; a needless build costs a minute."""
    project = shutil.copytree(engine_build.PROJECT, tmp_path / "engine")
    monkeypatch.setattr(engine_build, "PROJECT", project)
    monkeypatch.setenv("BRIDGE_CACHE", str(tmp_path / "cache"))
    before = engine_build.built_dir("camunda")
    assert engine_build.built_dir("operaton") != before

    (project / "README.md").write_text("not a source")
    assert engine_build.built_dir("camunda") == before

    source = next((project / "src").rglob("*.java"))
    source.write_text(source.read_text() + "// changed\n")
    assert engine_build.built_dir("camunda") != before


def test_a_built_engine_is_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every test run starts engines: they must come up without Maven on the path."""
    monkeypatch.setenv("BRIDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("PATH", "")
    engine_build.built_dir("camunda").mkdir(parents=True)

    assert engine_build.is_built("camunda")
    assert engine_build.build_engine("camunda").name == "camunda.jar"
    with pytest.raises(PartError, match="needs mvn: apt-get install"):
        engine_build.build_engine("operaton")
    assert not engine_build.is_built("operaton")


def test_a_node_inherits_nothing_from_the_systems_rabbitmq(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Settings of a system node would make ours join it, or write into its data."""
    monkeypatch.setenv("RABBITMQ_LOGS", "/var/log/rabbitmq/system.log")
    monkeypatch.setenv("ERL_FLAGS", "-setcookie system")

    ports = rabbitmq.Ports(1, 2, 3, 4)
    environment = rabbitmq.node_environment("n@localhost", tmp_path, ports)

    assert not {"RABBITMQ_LOGS", "ERL_FLAGS"} & environment.keys()
    assert environment["HOME"].startswith(str(tmp_path))
    assert environment["RABBITMQ_CONF_ENV_FILE"] == "/dev/null"


def test_a_node_listens_on_loopback_only() -> None:
    """guest/guest is no secret: no other machine may reach a node of the tests or the demo."""
    config = dict(line.split(" = ") for line in rabbitmq.node_config(rabbitmq.Ports(1, 2, 3, 4)))

    assert config["listeners.tcp.1"] == "127.0.0.1:1"
    assert config["management.tcp.ip"] == "127.0.0.1"
    assert config["distribution.listener.interface"] == "127.0.0.1"
