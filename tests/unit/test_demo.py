"""The demo's own rules: what it starts, how it judges, what it leaves behind."""

import io
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import requests
from rich.console import Console

from bridge.settings import load
from bridge.simulated_engine import SimulatedEngine
from deploy.local import demo_left
from deploy.local.demo import Options
from deploy.local.demo_bridge import PROCESSES, result_queues, write_settings
from deploy.local.demo_cases import (
    ATTEMPTS,
    CASES,
    DEMO,
    FEWEST,
    STUCK,
    TOPICS,
    Case,
    Ending,
    astray,
    cases,
    table,
)
from deploy.local.demo_engine import DemoEngine, DemoEngineError
from deploy.local.demo_left import Left, Running, end, end_left, left_running, remember
from deploy.local.demo_parts import Address, without_password
from deploy.local.demo_screen import DemoError, Screen

IDLE = [sys.executable, "-c", "import time; time.sleep(60)"]


@pytest.fixture
def engine() -> Iterator[SimulatedEngine]:
    with SimulatedEngine() as running:
        yield running


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        yield opened


def answer(session: requests.Session, url: str, verb: str, **body: object) -> None:
    """Fetch one task of any demo topic as a worker and answer it."""
    names = ("demo-worker", "payment-processing", "creditScoreChecker", "transcodeVideo")
    topics = [{"topicName": name, "lockDuration": 60_000} for name in names]
    wanted = {"workerId": "w", "maxTasks": 1, "topics": topics}
    (task,) = session.post(f"{url}/external-task/fetchAndLock", json=wanted).json()
    answered = session.post(
        f"{url}/external-task/{task['id']}/{verb}", json={"workerId": "w", **body}
    )
    assert answered.status_code == 204


@pytest.mark.parametrize("count", [FEWEST, 200])
def test_every_kind_of_ending_is_started(count: int) -> None:
    """A demo that happened to start no retry would still claim that retries work."""
    started = Counter(case.title for case in cases(count))

    assert started.total() == count
    assert started.keys() == {case.title for case in CASES}
    assert started[STUCK.title] == 1


def test_too_few_instances_are_refused() -> None:
    """Better a clear refusal than a run that shows half."""
    with pytest.raises(DemoError, match="at least 21") as caught:
        Options.read({"INSTANCES": "20"})

    assert "INSTANCES" in caught.value.cure


@pytest.mark.parametrize(("text", "keep"), [("", False), ("0", False), ("1", True), ("yes", True)])
def test_keep_is_off_unless_asked_for(text: str, keep: bool) -> None:
    """`make demo` passes an empty KEEP; that must not leave processes behind."""
    assert Options.read({"KEEP": text}).keep is keep


@pytest.mark.parametrize(
    "told",
    [
        replace(DEMO.ending, end=None),
        replace(DEMO.ending, failures=1),
        replace(DEMO.ending, incident=True),
        replace(DEMO.ending, boundary="elsewhere"),
        replace(DEMO.ending, variables=frozenset()),
    ],
)
def test_any_difference_from_the_intended_ending_is_named(told: Ending) -> None:
    """The exit code hangs on it: nothing may pass by ending merely somehow."""
    (sentence,) = astray({"i1": DEMO}, {"i1": told})

    assert sentence.startswith("external-task-demo i1: ")


def test_an_instance_that_the_history_does_not_know_is_astray() -> None:
    """A lost instance is the worst ending of all, and leaves no row to look at."""
    assert astray({"i1": DEMO}, {}) == [
        "external-task-demo i1: not ended; due: ended at answered, wrote demoOutput"
    ]


def test_the_table_counts_the_history_and_not_the_intention() -> None:
    """A table that repeats what was intended would be green on a dead bridge."""
    started: dict[str, Case] = {"i1": DEMO, "i2": DEMO, "i3": STUCK}

    rows = {row.title: row for row in table(started, {"i1": DEMO.ending, "i3": Ending()})}

    assert (rows[DEMO.title].started, rows[DEMO.title].finished) == (2, 1)
    assert rows[DEMO.title].as_intended == 1
    assert (rows[STUCK.title].incidents, rows[STUCK.title].as_intended) == (0, 0)


def test_the_history_tells_each_ending(engine: SimulatedEngine, session: requests.Session) -> None:
    """Finished, boundary taken, retried, incident and progress all come out of the engine."""
    demo = DemoEngine(engine.url, session)
    deployment = demo.deploy(PROCESSES.glob("*.bpmn"), "test")
    payment = deployment.definitions["payment"]
    payload: dict[str, str | int] = {"amount": 1, "currency": "EUR"}

    refused = demo.start(payment, "k1", payload)
    answer(session, engine.url, "bpmnError", errorCode="PAYMENT_ERROR")
    retried = demo.start(payment, "k2", payload)
    answer(session, engine.url, "failure", errorMessage="no", retries=2, retryTimeout=0)
    answer(session, engine.url, "complete", variables={"paymentStatus": {"value": "ok"}})
    stuck = demo.start(payment, "k3", payload)
    answer(session, engine.url, "failure", errorMessage="no", retries=0, retryTimeout=0)
    waiting = demo.start(deployment.definitions["credit-check"], "k4", {"customer": "Ada"})

    assert demo.count_settled(deployment) == 3
    assert demo.stories(deployment) == {
        refused: Ending("refused", boundary="payment-refused"),
        retried: Ending("paid", failures=1, variables=frozenset({"paymentStatus"})),
        stuck: Ending(failures=1, incident=True),
        waiting: Ending(),
    }


def test_a_run_counts_its_own_instances_only(
    engine: SimulatedEngine, session: requests.Session
) -> None:
    """A kept or given engine holds the instances of earlier runs."""
    demo = DemoEngine(engine.url, session)
    earlier = demo.deploy(PROCESSES.glob("*.bpmn"), "test")
    demo.start(earlier.definitions["credit-check"], "k1", {"customer": "Ada"})
    answer(session, engine.url, "complete")

    later = demo.deploy(PROCESSES.glob("*.bpmn"), "test")

    assert demo.count_settled(earlier) == 1
    assert demo.count_settled(later) == 0
    assert demo.stories(later) == {}


def test_an_unreachable_engine_is_one_clear_error(session: requests.Session) -> None:
    """The demo prints it as it is; a traceback of three libraries helps nobody."""
    with pytest.raises(DemoEngineError, match="GET /version"):
        DemoEngine("http://127.0.0.1:1/engine-rest", session).version()


def test_the_settings_are_readable_by_their_owner_alone(tmp_path: Path) -> None:
    """They carry the broker's password and the key that signs the tokens."""
    file = write_settings(
        tmp_path, tmp_path / "token.key", Address("http://x"), "amqp://x", "127.0.0.1:0"
    )

    for written in (file, tmp_path / "token.key"):
        assert written.stat().st_mode & 0o077 == 0


def test_the_bridge_takes_the_demo_s_settings(tmp_path: Path) -> None:
    """One renamed key, and the demo would end before it began."""
    engine = Address("http://x/engine-rest", "u", 'p"')
    file = write_settings(tmp_path, tmp_path / "key", engine, "amqp://u:p@x/%2F", "127.0.0.1:0")

    settings = load(file, {})

    assert set(settings.topics) == set(TOPICS.values())
    assert settings.engine.username == "u"
    assert {topic.retries for topic in settings.topics.values()} == {ATTEMPTS}
    assert {topic.result_queue for topic in settings.topics.values()} == set(result_queues())


def test_a_second_run_signs_with_the_same_key(tmp_path: Path) -> None:
    """A given broker may hold answers of the first run: gone tasks, and no reason to park them."""
    key = tmp_path / "key"
    write_settings(tmp_path, key, Address("http://x"), "amqp://x", "127.0.0.1:0")
    first = key.read_text()

    write_settings(tmp_path, key, Address("http://x"), "amqp://x", "127.0.0.1:0")

    assert key.read_text() == first


def test_credentials_are_taken_out_of_the_engine_s_url() -> None:
    """The bridge refuses them there, and they would be printed with every error."""
    address = Address.of("https://demo:p%40ss@engine:8443/engine-rest")

    assert address == Address("https://engine:8443/engine-rest", "demo", "p@ss")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("amqp://guest:guest@127.0.0.1:1/%2F", "amqp://guest:guest@127.0.0.1:1/%2F"),
        ("amqp://me:secret@broker:1/%2F", "amqp://broker:1/%2F"),
        ("amqp://broker", "amqp://broker"),
    ],
)
def test_a_password_of_the_user_s_is_not_shown(url: str, shown: str) -> None:
    """Demos are shown to colleagues and their output is pasted into issues."""
    assert without_password(url) == shown


@pytest.fixture
def left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of processes left running, in a folder of its own."""
    file = tmp_path / "running.json"
    monkeypatch.setattr(demo_left, "LEFT", file)
    return file


@pytest.mark.usefixtures("left")
def test_what_is_remembered_is_found_and_ended() -> None:
    """`make down` runs in another process than the demo did."""
    with subprocess.Popen(IDLE) as child:
        remember(Left(((Running.of("idle", child.pid),),)))

        found = left_running()
        end_left(found)

        assert found.names() == "idle"
        assert found.groups[0][0].process() is None
        assert left_running() == Left()


def test_a_process_that_took_over_the_pid_is_left_alone() -> None:
    """Pids are used again: `make down` a day later must not end a stranger."""
    with subprocess.Popen(IDLE) as child:
        stale = replace(Running.of("idle", child.pid), created=1.0)

        end([stale])

        assert child.poll() is None
        child.kill()


def test_the_children_of_a_process_end_with_it() -> None:
    """A script that starts a server must not leave the server behind."""
    script = f"import subprocess; subprocess.Popen({IDLE!r}).wait()"
    with subprocess.Popen([sys.executable, "-c", script]) as child:
        family = Running.of("family", child.pid)
        process = family.process()
        assert process is not None
        while not (children := process.children()):
            assert child.poll() is None

        end([family])

        assert not children[0].is_running()


def test_a_failed_step_is_a_cross_with_its_cure() -> None:
    """Without a terminal, colours or moving lines the output must still tell the story."""
    output = io.StringIO()
    screen = Screen(Console(file=output, width=80))

    with pytest.raises(DemoError) as caught, screen.step("RabbitMQ"):
        raise DemoError("RabbitMQ is not installed", "apt-get install rabbitmq-server")
    screen.failure(str(caught.value), caught.value.cure)

    assert "✗ RabbitMQ" in output.getvalue()
    assert "→ apt-get install rabbitmq-server" in output.getvalue()
    assert "\x1b" not in output.getvalue()


def test_following_ends_with_the_last_instance_or_the_limit() -> None:
    """The demo is bounded: an instance that never ends must not hang it."""
    screen = Screen(Console(file=io.StringIO(), width=80))

    assert screen.follow(2, lambda: 2, seconds=60)
    assert not screen.follow(2, lambda: 1, seconds=0)
