"""Which topic lacks somebody, judged from what engine, queues and process models tell."""

from __future__ import annotations

import pytest

from bridge import settings as bridge_settings
from bridge.cli.queues import _topics_document, _topics_table
from bridge.desk.models import topics_named
from bridge.desk.topics import InEngine, TopicLine, compare
from bridge.queue_counts import QueueCount
from tests.support.engine import process_xml

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


def test_a_topic_that_no_model_names_is_a_problem() -> None:
    """Unless nobody can say, because models make their topics by expressions."""
    empty = {"payment": InEngine()}

    assert "no process uses it" in (line(tasks=empty, in_models={"other"}).problem or "")
    assert line(tasks=empty, in_models={"payment"}).problem is None
    assert line(tasks=empty, in_models=None).remark == "the engine has no task of it"


def test_topics_are_found_in_a_model() -> None:
    """Whatever prefix its namespace has, and whatever the name must be escaped into."""
    xml = process_xml("p", ["pay", "R&D <x>", "${dynamic}"])

    assert topics_named(xml) == {"pay", "R&D <x>", "${dynamic}"}
    assert topics_named(xml.replace("camunda:", "operaton:")) == topics_named(xml)
    assert topics_named('<a x:topic=\'single\' topic="bare" my:topics="t"/>') == {"single"}


def test_what_is_printed_names_the_topic_and_the_cure() -> None:
    """As a row, and as JSON with stable keys."""
    lines = compare(SETTINGS, {**TASKS, "x": InEngine(waiting=1)}, QUEUES, None)

    row = _topics_table(lines).splitlines()[-1]
    document = _topics_document(lines)["topics"][-1]

    assert row.split()[:6] == ["x", "no", "1", "0", "0", "-"]
    assert "! nobody bridges it" in row
    assert (document["name"], document["waiting"], document["configured"]) == ("x", 1, False)
    assert document["problem"] in row
