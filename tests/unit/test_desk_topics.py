"""Which topic lacks somebody, judged from what engine, queues and process models tell."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from bridge import settings as bridge_settings
from bridge.cli import app
from bridge.cli.queues import _topics_document, _topics_table
from bridge.desk.topics import InEngine, TopicLine, compare, topics_in_models
from bridge.queue_counts import QueueCount
from bridge.simulated_engine import Answer, SimulatedEngine, linear_process
from tests.support.desk import Desk

BUSY = QueueCount(0, None, 2)
SETTINGS = bridge_settings.load(None, {"BRIDGE_TOPICS": "payment,ship"})
QUEUES: dict[str, QueueCount | None] = dict.fromkeys(
    ("payment", "payment.results", "ship", "ship.results"), BUSY
)
SOME = InEngine(locked=3, holders=("bridge",))
TASKS = {"payment": SOME, "ship": SOME}


def line(
    name: str = "payment",
    *,
    tasks: dict[str, InEngine] | None = None,
    queues: dict[str, QueueCount | None] | None = None,
    in_models: set[str] | None = None,
) -> TopicLine:
    lines = compare(SETTINGS, {**TASKS, **(tasks or {})}, {**QUEUES, **(queues or {})}, in_models)
    return next(one for one in lines if one.name == name)


def test_nothing_is_wrong_where_everybody_is_there() -> None:
    """A busy system is not a broken one."""
    lines = compare(SETTINGS, TASKS, QUEUES, None)

    assert [(one.name, one.problem, one.remark) for one in lines] == [
        ("payment", None, None),
        ("ship", None, None),
    ]


@pytest.mark.parametrize(
    ("tasks", "count", "words"),
    [
        (SOME, QueueCount(12, 0, 0), "queue 'payment' has 12 ready and no consumer; start its"),
        (SOME, QueueCount(0, None, 0), "queue 'payment' has no consumer"),
        (InEngine(waiting=1), QueueCount(0, None, 0), "no consumer"),
        (SOME, None, "queue 'payment' is not there"),
        (InEngine(failed=2), BUSY, "2 without attempts left: external-task-bridge incidents"),
    ],
)
def test_work_that_nobody_takes_is_a_problem(
    tasks: InEngine, count: QueueCount | None, words: str
) -> None:
    """The usual reason why nothing goes on."""
    assert words in (line(tasks={"payment": tasks}, queues={"payment": count}).problem or "")


def test_no_consumer_and_nothing_to_do_is_no_problem() -> None:
    """Workers that are scaled to none while nothing is to be done."""
    found = line(
        tasks={"payment": InEngine()},
        queues={"payment": QueueCount(0, None, 0)},
        in_models={"payment"},
    )

    assert (found.problem, found.remark) == (None, "nobody consumes queue 'payment'")


def test_a_bridge_that_does_not_run_is_a_problem() -> None:
    """Its result queue has no consumer."""
    found = line(queues={"payment.results": QueueCount(0, None, 0)})

    assert "external-task-bridge run" in (found.problem or "")


def test_tasks_that_nobody_bridges_are_a_problem() -> None:
    """With the table that is missing, quoted where TOML wants it."""
    found = line("mail out", tasks={"mail out": InEngine(waiting=7)})

    assert found.problem == 'nobody bridges it: 7 waiting; add [topics."mail out"]'
    assert (found.configured, found.queue) == (False, None)


def test_a_topic_that_is_only_spelt_otherwise_is_pointed_at() -> None:
    """Both ways: from the engine's name and from the configured one."""
    tasks = {"payments": InEngine(waiting=1), "payment": InEngine()}

    assert "'payment'" in (line("payments", tasks=tasks).problem or "")
    assert "did you mean 'payments'?" in (line(tasks=tasks, in_models=set()).problem or "")


def test_a_topic_that_others_serve_is_none_of_ours() -> None:
    """A native client of the engine holds its tasks."""
    found = line("mail", tasks={"mail": InEngine(waiting=5, locked=1, holders=("node-1",))})

    assert (found.problem, found.remark) == (None, "served by 'node-1'")


def test_a_topic_that_no_newest_model_names_is_only_remarked() -> None:
    """An older version may run on, or the model be hidden from the bridge's user: who removed the
    topic would stop a process.
    """
    empty = {"payment": InEngine()}

    unnamed = line(tasks=empty, in_models={"other"})
    assert (unnamed.problem, "no process names it" in (unnamed.remark or "")) == (None, True)
    unknown = line(tasks=empty, in_models=None)
    assert (unknown.problem, unknown.remark) == (None, "the engine has no task of it")
    assert line(tasks=empty, in_models={"payment"}).remark is None
    assert "remove" not in f"{unnamed.remark}{unknown.remark}"


def test_a_topic_that_is_configured_as_well_is_no_other_spelling() -> None:
    """A new version of the process has renamed its topic, and both are served."""
    renamed = bridge_settings.load(None, {"BRIDGE_TOPICS": "payment,payments"})
    tasks = {"payment": InEngine(), "payments": SOME}
    queues = QUEUES | dict.fromkeys(("payments", "payments.results"), BUSY)

    assert [one.problem for one in compare(renamed, tasks, queues, {"payments"})] == [None, None]


@pytest.fixture
def engine(simulated: SimulatedEngine) -> Desk:
    return Desk(simulated)


def test_the_topics_of_the_newest_models_are_known(engine: Desk) -> None:
    """Each as the engine reads it: what is commented out is none."""
    engine.start("pay")
    comment = b'<!-- <serviceTask camunda:type="external" camunda:topic="old"/> --></process>'
    model = linear_process("odd", "R&D <x>")
    assert b"</process>" in model
    engine.simulated.deploy(model.replace(b"</process>", comment))

    assert topics_in_models(engine.records) == {"pay", "R&D <x>"}


def test_no_model_to_be_seen_means_that_nobody_knows(engine: Desk) -> None:
    """The rights of a bridge, READ_INSTANCE and UPDATE_INSTANCE, show it no process definition:
    the engine answers with an empty list.
    """
    assert topics_in_models(engine.records) is None


def test_a_model_that_must_not_be_read_means_that_nobody_knows(engine: Desk) -> None:
    """The engine shows it in its list, and refuses what is in it."""
    engine.start("pay")
    body = {"type": "AuthorizationException", "message": "no", "code": 0}
    engine.simulated.faults.add("definitionXml", when="before", action=Answer(403, body))

    assert topics_in_models(engine.records) is None


def test_a_topic_by_an_expression_means_that_nobody_knows(engine: Desk) -> None:
    """It may be any."""
    engine.simulated.deploy(linear_process("p", "${topic}"))

    assert topics_in_models(engine.records) is None


def test_a_broker_that_is_away_is_named_with_its_address(engine: Desk, tmp_path: Path) -> None:
    """Without credentials, and with an exit code that scripts know."""
    config = tmp_path / "bridge.toml"
    config.write_text(
        f'[engine]\nurl = "{engine.simulated.url}"\n[broker]\n'
        'url = "amqp://joe:s3cret@127.0.0.1:1/%2F"\n[topics.pay]\n'
    )

    done = CliRunner().invoke(app, ["topics", "--config", str(config)])

    assert done.exit_code == 3
    assert done.stderr.startswith("RabbitMQ at 127.0.0.1:1: ")
    assert "[broker] url" in done.stderr
    assert "s3cret" not in done.stderr


def test_what_is_printed_names_the_topic_and_the_cure() -> None:
    """As a row, and as JSON with stable keys."""
    lines = compare(SETTINGS, {**TASKS, "x": InEngine(waiting=1)}, QUEUES, None)

    row = _topics_table(lines).splitlines()[-1]
    document = _topics_document(lines)["topics"][-1]

    assert row.split()[:6] == ["x", "no", "1", "0", "0", "-"]
    assert "! nobody bridges it" in row
    assert (document["name"], document["waiting"], document["configured"]) == ("x", 1, False)
    assert document["problem"] in row
