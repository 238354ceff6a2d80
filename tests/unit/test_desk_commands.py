"""`tasks`, `why`, `incidents`, `retry` and `release` as commands: what they print and exit with."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge.cli import app
from bridge.desk.asking import unreachable
from bridge.engine.auth import SecretUnusable, SignInUnavailable
from bridge.errors import EngineError, EngineUnauthorized
from bridge.settings import EngineSettings
from bridge.simulated_engine import SimulatedEngine
from tests.support.desk import Desk

ROOT = Path(__file__).parents[2]
SETTINGS = """
[engine]
url = "{url}"
[broker]
url = "amqp://guest:guest@127.0.0.1:1/%2F"
[status]
listen = "127.0.0.1:1"
[topics.pay]
"""


@dataclass(frozen=True)
class Said:
    """What one command said."""

    code: int
    out: str
    err: str


class Command:
    """The command line beside an engine, with a settings file."""

    def __init__(self, config: Path, url: str) -> None:
        self._config = str(config)
        config.write_text(SETTINGS.format(url=url))

    def __call__(self, *arguments: str) -> Said:
        """Run a command without a terminal."""
        done = CliRunner().invoke(app, [*arguments, "--config", self._config])
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def typing(self, typed: str, *arguments: str) -> Said:
        """Run a command, as a process, with somebody at a terminal who types this."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, typed.encode())
            done = subprocess.run(
                [sys.executable, "-m", "bridge", *arguments, "--config", self._config],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env={"PYTHONPATH": str(ROOT), "PATH": ""},
                stdin=theirs,
            )
        finally:
            os.close(ours)
            os.close(theirs)
        return Said(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def engine(simulated: SimulatedEngine) -> Desk:
    return Desk(simulated)


@pytest.fixture
def command(tmp_path: Path, engine: Desk) -> Command:
    return Command(tmp_path / "bridge.toml", engine.simulated.url)


def failed(engine: Desk, number: int = 1) -> list[str]:
    """Tasks without retries."""
    tasks = [engine.start(business_key=f"order-{n}") for n in range(number)]
    engine.fetch()
    for task in tasks:
        engine.fail(task, message="no money\nstack")
    return tasks


def test_tasks_are_a_table_or_a_document(engine: Desk, command: Command) -> None:
    """A line each, for people and for grep; for scripts one document."""
    (task,) = failed(engine)
    waiting = engine.start()

    table, document = command("tasks"), command("tasks", "--state", "failed", "--json")

    assert (table.code, table.err) == (0, "")
    heading, *lines = table.out.splitlines()
    assert heading.split("  ")[0] == "TASK"
    assert [line.split()[0] for line in lines] == [task, waiting]
    assert "incident: no retries left" in lines[0]
    assert "no money" in lines[0]
    assert "stack" not in table.out
    assert [row["taskId"] for row in json.loads(document.out)["tasks"]] == [task]


def test_that_there_are_more_tasks_is_said(engine: Desk, command: Command) -> None:
    """And where there are none, in words, not by an empty table."""
    none = command("tasks")
    for _ in range(2):
        engine.start()
    some = command("tasks", "--limit", "1")

    assert (none.code, none.out) == (0, "no such task\n")
    assert len(some.out.splitlines()) == 2
    assert "--limit" in some.err


def test_why_answers_without_bridge_and_broker(engine: Desk, command: Command) -> None:
    """Both are down, which is when somebody asks."""
    (task,) = failed(engine)

    said, unknown = command("why", "order-0"), command("why", "order-1")

    assert (said.code, said.err) == (0, "")
    assert said.out.splitlines()[0] == f"task {task}: failed"
    assert f"what helps: external-task-bridge retry {task}" in said.out
    assert "no bridge answers at http://127.0.0.1:1" in said.out
    assert unknown.code == 1
    assert "known" in unknown.out


def test_incidents_exit_with_1_where_there_is_one(engine: Desk, command: Command) -> None:
    """So that a probe can ask."""
    before = command("incidents")
    failed(engine, 3)
    after, document = command("incidents", "--limit", "2"), command("incidents", "--json")

    assert (before.code, before.out) == (0, "no incident of an external task\n")
    assert after.code == document.code == 1
    assert after.out.splitlines()[1].split() == ["pay", "3", "no", "money"]
    assert "and 1 more" in after.out
    assert json.loads(document.out)["groups"][0]["count"] == 3


def test_nothing_is_retried_without_a_yes(engine: Desk, command: Command) -> None:
    """A script that forgot it changes nothing, and neither does a preview."""
    tasks = failed(engine, 12)

    bare, dry = command("retry", "--topic", "pay"), command("retry", "--topic", "pay", "--dry-run")
    refused = command.typing("n\n", "retry", "--topic", "pay")

    assert (bare.code, dry.code, refused.code) == (2, 0, 1)
    assert "12 to retry, 1 more attempt each: 12 of pay" in bare.out
    assert "and 2 more" in bare.out
    assert "--yes" in bare.err
    assert "nothing was done" in dry.out
    assert "nothing was done" in refused.err
    assert {engine.task(task)["retries"] for task in tasks} == {0}


def test_a_typed_y_is_a_yes(engine: Desk, command: Command) -> None:
    """On a terminal nobody has to know an option."""
    (task,) = failed(engine)

    said = command.typing("y\n", "retry", task, "--retries", "2")

    assert said.code == 0
    assert said.out.splitlines()[-1].strip() == "done: 1"
    assert engine.task(task)["retries"] == 2


def test_what_was_not_done_is_exit_code_1(engine: Desk, command: Command) -> None:
    """Each with its reason, in the document too, which has standard output for itself."""
    (task,) = failed(engine)
    waiting = engine.start()

    said = command("retry", task, waiting, "--yes", "--json")

    document = json.loads(said.out)
    assert said.code == 1
    assert document["done"] == [task]
    assert [left["taskId"] for left in document["notDone"]] == [waiting]
    assert "1 to retry" in said.err


def test_a_release_says_what_its_queue_holds(engine: Desk, command: Command) -> None:
    """Here nobody knows, so it warns; the lock ends all the same."""
    task = engine.start()
    engine.fetch(seconds=600)

    document = command("release", "--topic", "pay", "--older-than", "0s", "--dry-run", "--json")
    said = command("release", "--topic", "pay", "--older-than", "0s", "--yes")

    assert said.code == 0, said.err
    (note,) = json.loads(document.out)["notes"]
    assert note.endswith("age from creation")
    assert note in said.out
    assert "1 to release: 1 of pay" in said.out
    assert "queue pay cannot be looked at" in said.out
    assert "will come twice" in said.out
    assert engine.fetch(worker="another") == [task]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (("retry",), "--topic"),
        (("release",), "--topic"),
        (("release", "id", "--topic", "pay"), "--topic"),
        (("release", "--topic", "pay"), "--older-than"),
        (("release", "id", "--older-than", "5m"), "--older-than"),
        (("release", "--topic", "pay", "--older-than", "soon"), "duration"),
        (("tasks", "--state", "lost"), "lost"),
        (("tasks", "--limit", "0"), "--limit"),
    ],
)
def test_half_a_wish_is_bad_usage(command: Command, arguments: tuple[str, ...], word: str) -> None:
    """All tasks of an engine are never meant by leaving something out."""
    said = command(*arguments)

    assert said.code == 2
    assert word in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "arguments", [("tasks",), ("why", "x"), ("incidents",), ("retry", "x"), ("release", "x")]
)
def test_without_an_engine_the_exit_code_is_3(
    engine: Desk, command: Command, arguments: tuple[str, ...]
) -> None:
    """One sentence: what, where, and the cure."""
    engine.simulated.stop()

    said = command(*arguments)

    assert said.code == 3
    assert said.err == (
        f"the engine at {engine.simulated.url}: no connection: Connection refused; "
        "start the engine, or correct [engine] url\n"
    )


@pytest.mark.parametrize(
    ("error", "cure"),
    [
        (SecretUnusable("oauth2_client_secret", "is refused", "correct it"), "correct it"),
        (SignInUnavailable("no answer"), "start the authorization server"),
        (EngineUnauthorized("401"), "correct the credentials in [engine]"),
    ],
)
def test_who_does_not_sign_us_in_is_named(error: EngineError, cure: str) -> None:
    """An engine that is up must not be restarted for the sake of an authorization server."""
    assert cure in unreachable(error, EngineSettings())
