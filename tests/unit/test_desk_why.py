"""`why`: what a task waits for, judged from an engine, a broker and a bridge that say so."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

import bridge
from bridge.desk import why
from bridge.desk.asking import Replica
from bridge.desk.verdict import REASONS
from bridge.desk.why import Answer, Explained
from bridge.engine import records
from bridge.errors import ValueRefused
from bridge.queue_counts import QueueCount
from bridge.simulated_engine import SimulatedEngine
from tests.support import desk
from tests.support.desk import Counts, Desk, given, held

NOBODY = Replica(desk.silent)
IDLE = desk.replica()
EMPTY = QueueCount(0, None, 0)
LOST = (
    "an answer that may never come, for 5 min now: queue pay is empty and nobody works on it; "
    "was it purged, or did a worker lose it?"
)
CALM = Counts(pay=EMPTY, pay_results=QueueCount(0, None, 1))


@pytest.fixture
def engine(simulated: SimulatedEngine) -> Desk:
    return Desk(simulated)


@pytest.fixture
def ask(engine: Desk, tmp_path: Path) -> Any:
    """`why` of a key, with this bridge, broker and topics."""

    def ask(
        key: str,
        bridge: Replica = IDLE,
        broker: Counts = CALM,
        topics: str = "[topics.pay]",
    ) -> Answer:
        settings = given(tmp_path, topics)
        return why.look(settings, key, records=engine.records, replica=bridge, count=broker)

    return ask


def only(answer: Answer) -> Explained:
    (task,) = answer.tasks
    return task


def said(task: Explained, source: str) -> list[str]:
    return [fact.text for fact in task.facts if fact.source == source]


def in_flight(engine: Desk) -> str:
    """A task that this worker id has leased."""
    engine.start()
    (task,) = engine.fetch(seconds=600)
    return task


# -- by which name ---------------------------------------------------------------------------------


def test_a_task_is_found_by_each_of_its_names(engine: Desk, ask: Any) -> None:
    """Whoever complains has one of them."""
    task = engine.start(business_key="order-7")
    instance = engine.task(task)["processInstanceId"]

    by_id, by_instance, by_key = ask(task), ask(instance), ask("order-7")

    assert [a.found for a in (by_id, by_instance, by_key)] == [
        "task",
        "processInstance",
        "businessKey",
    ]
    assert {only(a).task_id for a in (by_id, by_instance, by_key)} == {task}
    assert only(by_key).business_key == "order-7"


@pytest.mark.parametrize("name", ["nope", "count", "", "a/b?c=d", "a,b"])
def test_an_unknown_name_is_told(engine: Desk, ask: Any, name: str) -> None:
    """It may be misspelt, or belong to another engine; none of it is a path or a filter."""
    engine.start(business_key="order-7")

    answer = ask(name)

    assert (answer.found, answer.tasks, answer.engine_problem) == ("none", (), None)
    assert answer.note is not None
    assert "known" in answer.note
    assert "READ_HISTORY" in answer.note


def test_a_completed_task_is_found_in_the_history(engine: Desk, ask: Any) -> None:
    """By its id and by its instance's names, with when it ended."""
    task = engine.start(business_key="order-7")
    instance = engine.task(task)["processInstanceId"]
    engine.fetch()
    engine.fail(task, retries=2, message="no money\nstack")
    engine.act(task, "complete")

    for key in (task, instance, "order-7"):
        ended = only(ask(key))
        assert (ended.task_id, ended.verdict.state) == (task, "completed")
        assert ended.verdict.waits_for.startswith("nothing: completed at 2")
        assert ended.verdict.command is None
        assert said(ended, "engine") == [
            "created for topic pay of process pay-process",
            "an attempt failed, reported by worker id bridge: no money",
            "completed by worker id bridge",
        ]
    assert "COMPLETED" in str(ask("order-7").note)


def test_a_cancelled_task_is_not_called_completed(engine: Desk, ask: Any) -> None:
    """Its work may never have been done."""
    task = engine.start()
    engine.call("DELETE", f"/process-instance/{engine.task(task)['processInstanceId']}")

    assert only(ask(task)).verdict.state == "ended"
    assert "cancelled" in only(ask(task)).verdict.waits_for


def test_facts_are_told_in_order_of_time(engine: Desk, ask: Any) -> None:
    """A story, not a heap; what is so now comes last."""
    task = in_flight(engine)
    engine.simulated.clock.advance(30)
    engine.fail(task, retries=2)
    engine.simulated.clock.advance(30)
    engine.fetch()
    engine.simulated.clock.advance(20)

    facts = only(ask(task, desk.replica(held(task, seconds=20)))).facts

    times = [fact.at for fact in facts if fact.at is not None]
    assert times == sorted(times)
    assert [fact.source for fact in facts[:3]] == ["engine", "engine", "bridge"]
    assert [fact.at for fact in facts[len(times) :]] == [None] * (len(facts) - len(times))
    assert len(facts) > len(times) == 3


def test_more_tasks_than_are_shown_have_not_ended(
    engine: Desk, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that wait side by side: those that are left out are not taken for dead, and that some
    are left out is said.
    """
    monkeypatch.setattr(why, "TASKS_MAX", 2)
    tasks = [engine.start(business_key="order-7") for _ in range(5)]

    answer = ask("order-7")

    assert [task.task_id for task in answer.tasks] == tasks[:2]
    assert {task.verdict.state for task in answer.tasks} == {"waiting"}
    assert answer.note == "only the first 2 tasks are shown"


def test_more_that_ended_than_are_shown_is_said(
    engine: Desk, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list that is cut is told from a whole one."""
    monkeypatch.setattr(why, "TASKS_MAX", 2)
    tasks = [engine.start(business_key="order-7") for _ in range(3)]
    for task in engine.fetch():
        engine.act(task, "complete")

    answer = ask("order-7")

    assert {task.task_id for task in answer.tasks} < set(tasks)
    assert str(answer.note).endswith("; only the last 2 that ended are shown")


def test_more_instances_than_are_looked_at_is_said(
    engine: Desk, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A customer's number as the business key of many."""
    monkeypatch.setattr(why, "INSTANCES_MAX", 2)
    for _ in range(3):
        engine.start(business_key="order-7")

    answer = ask("order-7")

    assert len(answer.tasks) == 2
    assert answer.note == "only 2 process instances are looked at"


def test_a_long_log_is_told_to_its_end(
    engine: Desk, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How it ended is worth more than how it began."""
    monkeypatch.setattr(records, "PAGE", 2)
    task = in_flight(engine)
    engine.fail(task, retries=2)
    engine.fetch()
    engine.act(task, "complete")

    ended = only(ask(task))

    assert ended.verdict.state == "completed"
    assert said(ended, "engine") == [
        "an attempt failed, reported by worker id bridge: no",
        "completed by worker id bridge",
    ]


# -- what it waits for -----------------------------------------------------------------------------


def test_a_suspended_instance_waits_to_be_resumed(engine: Desk, ask: Any) -> None:
    """Nothing that a bridge or a worker does can help."""
    task = in_flight(engine)
    engine.suspend(task)

    verdict = only(ask(task)).verdict

    assert verdict.waits_for == "the process instance to be resumed: it is suspended"
    assert verdict.command is None


def test_an_incident_waits_for_a_retry(engine: Desk, ask: Any) -> None:
    """With the command, ready to be typed."""
    task = in_flight(engine)
    engine.fail(task, message="no money")

    verdict = only(ask(task)).verdict

    assert verdict.waits_for == "an operator: no retries left, incident: no money"
    assert verdict.command == f"external-task-bridge retry {task}"


def test_a_refused_answer_is_not_lost(engine: Desk, ask: Any) -> None:
    """The work is done: to mend the parked answer may be better than to do it again."""
    task = in_flight(engine)
    engine.fail(task, message="bad-json: the body is not UTF-8")

    kept = ask(task, broker=Counts(bridge_parked=QueueCount(1, None, 0)))

    verdict = only(kept).verdict
    assert "bad-json: the body is not UTF-8; the answer itself is kept" in verdict.waits_for
    assert verdict.command == "external-task-bridge parked list"
    assert only(ask(task)).verdict.command == f"external-task-bridge retry {task}"


def test_a_workers_own_words_are_no_reason_of_ours(engine: Desk, ask: Any) -> None:
    """Nothing of it is parked: what lies there is another's."""
    task = in_flight(engine)
    engine.fail(task, message="card-declined: no money")

    verdict = only(ask(task, broker=Counts(bridge_parked=QueueCount(1, None, 0)))).verdict

    assert verdict.waits_for.endswith("incident: card-declined: no money")


def test_every_reason_to_park_an_answer_is_known() -> None:
    """A reason that is added elsewhere must not be taken for a worker's words."""
    of_no_task = {"bad-token", "no-queue", "no-reason", "no-token", "unknown-topic"}
    raised = re.compile(r'(?:ResultRefused|_refused)\(\s*"([a-z-]+)"')
    found = {
        reason
        for path in Path(bridge.__file__).parent.rglob("*.py")
        for reason in raised.findall(path.read_text(encoding="utf-8"))
    }

    assert len(found) > 5
    assert found - of_no_task == REASONS - {ValueRefused("name", "why").reason}


def test_another_worker_id_is_named(engine: Desk, ask: Any) -> None:
    """A forgotten client of the engine takes tasks of the same topic."""
    task = engine.start()
    engine.fetch(worker="legacy")

    assert only(ask(task)).verdict.waits_for.startswith("worker id legacy, which holds it for ")


def test_a_topic_that_nobody_bridges_is_named(engine: Desk, ask: Any) -> None:
    """The commonest of all: a word in the model and another in the settings."""
    verdict = only(ask(engine.start("payment"))).verdict

    assert verdict.waits_for == (
        "a bridge for topic payment, which is configured nowhere in these settings"
    )
    assert verdict.command == "external-task-bridge topics"


def test_a_filter_that_leaves_it_out_is_named(engine: Desk, ask: Any) -> None:
    """The topic is bridged, but not for this process."""
    task = engine.start()

    one = ask(task, topics="[topics.pay]\nprocess_definition_key = 'other'")
    several = ask(task, topics="[topics.pay]\nprocess_definition_key_in = ['other', 'more']")
    fits = ask(task, topics="[topics.pay]\nprocess_definition_key_in = ['pay-process']")

    assert "topics.pay.process_definition_key leaves it out" in only(one).verdict.waits_for
    assert "topics.pay.process_definition_key_in leaves it out" in only(several).verdict.waits_for
    assert only(fits).verdict.waits_for == "the bridge's next fetch"


@pytest.mark.parametrize(
    ("keys", "name"),
    [
        ("process_definition_version_tag = 'v2'", "process_definition_version_tag"),
        ("process_variables = { region = 'eu' }", "process_variables"),
    ],
)
def test_a_filter_that_the_record_does_not_tell_is_named(
    engine: Desk, ask: Any, keys: str, name: str
) -> None:
    """It may wait for ever, and no look at the task shows it."""
    verdict = only(ask(engine.start(), topics=f"[topics.pay]\n{keys}")).verdict

    assert verdict.waits_for == f"the bridge's next fetch, unless topics.pay.{name} leaves it out"
    assert verdict.command == "external-task-bridge config show"


@pytest.mark.parametrize(
    ("bridge", "waits_for", "command"),
    [
        (NOBODY, f"a bridge: {desk.SILENT}", "check"),
        (
            desk.replica(problems={"engine": "401"}),
            "the bridge, which cannot fetch for it: engine: 401",
            "check",
        ),
        (
            desk.replica(problems={"topic pay": "no exchange", "topic ship": "no queue"}),
            "the bridge, which cannot fetch for it: topic pay: no exchange",
            "check",
        ),
        (
            desk.replica(problems={"topic ship": "no queue"}),
            "the bridge's next fetch",
            None,
        ),
        (
            desk.replica(topics=[{"name": "pay", "inFlight": 9, "capacity": 9}]),
            "room: 9 tasks of pay are in flight, which is all that max_in_flight allows; "
            "queue pay has 0 ready and no consumer",
            "top",
        ),
        (
            desk.replica(topics=[{"name": "pay", "inFlight": 8, "capacity": 9}]),
            "the bridge's next fetch",
            None,
        ),
    ],
)
def test_what_keeps_a_bridge_from_fetching_is_told(
    engine: Desk, ask: Any, bridge: Replica, waits_for: str, command: str | None
) -> None:
    """Its own words; what concerns another topic is not this task's."""
    verdict = only(ask(engine.start(), bridge)).verdict

    assert verdict.waits_for == waits_for
    assert verdict.command == (command and f"external-task-bridge {command}")


def test_a_topic_that_waits_for_a_consumer_is_told(engine: Desk, ask: Any) -> None:
    """Only where it does: others are fetched without one."""
    task, topics = engine.start(), "[topics.pay]\nwait_for_consumer = true"

    without = ask(task, topics=topics)
    with_one = ask(task, topics=topics, broker=Counts(pay=QueueCount(0, None, 1)))

    assert only(without).verdict.waits_for == (
        "a consumer: queue pay has none, and wait_for_consumer is set"
    )
    assert only(with_one).verdict.waits_for == "the bridge's next fetch"


def test_a_pause_between_attempts_is_told_with_its_end(engine: Desk, ask: Any) -> None:
    """And how to cut it short."""
    task = in_flight(engine)
    engine.fail(task, retries=1, pause=100)

    verdict = only(ask(task)).verdict

    assert verdict.waits_for.startswith("its next attempt, in 1 min")
    assert verdict.waits_for.endswith("it has failed once, attempts left: 1")
    assert verdict.command == f"external-task-bridge release {task}"


@pytest.mark.parametrize("bridge", [IDLE, NOBODY])
def test_what_a_peer_may_have_published_is_not_released(
    engine: Desk, ask: Any, bridge: Replica
) -> None:
    """In the engine the second attempt's fetch looks like the pause before it."""
    task = in_flight(engine)
    engine.fail(task, retries=1)
    engine.fetch(seconds=60)

    verdict = only(ask(task, bridge)).verdict

    assert "or an answer" in verdict.waits_for
    assert verdict.command is None


@pytest.mark.parametrize("part", ["topic pay", "publisher", "queue pay"])
def test_a_message_that_no_queue_takes_waits_for_the_bridge(
    engine: Desk, ask: Any, part: str
) -> None:
    """The bridge has let go of it, and its lock still runs: nothing is in flight."""
    task = engine.start()
    engine.fetch()

    verdict = only(ask(task, desk.replica(problems={part: "the queue is full"}))).verdict

    assert verdict.state == "waiting"
    assert verdict.waits_for.startswith(
        f"the bridge, which cannot publish for it: {part}: the queue is full; next fetch in "
    )
    assert verdict.command == "external-task-bridge check"


@pytest.mark.parametrize("bridge", [IDLE, NOBODY])
def test_what_was_given_back_is_not_released(engine: Desk, ask: Any, bridge: Replica) -> None:
    """A worker unlocked it, or a replica that was not asked has just published it."""
    engine.start()
    (task,) = engine.fetch(seconds=30)

    verdict = only(ask(task, bridge)).verdict

    assert verdict.waits_for.startswith("an answer, or the next fetch in ")
    assert verdict.command is None


def test_a_topic_without_answers_waits_for_the_engine(engine: Desk, ask: Any) -> None:
    """An empty queue is as it should be: a release would have the work done twice."""
    task = in_flight(engine)

    verdict = only(
        ask(task, desk.replica(held(task, 300.0)), topics="[topics.pay]\nreply = 'none'")
    ).verdict

    assert verdict.waits_for.startswith("the engine, to take the completion")
    assert verdict.command is None


def test_a_deadline_that_has_passed_is_told(engine: Desk, ask: Any) -> None:
    """Nobody waits for the answer much longer."""
    task = in_flight(engine)
    entry = held(task, 3900.0, deadlineSecondsLeft=-300.0)
    busy = Counts(pay=QueueCount(0, 1, 1))

    late = only(ask(task, desk.replica(entry), busy)).verdict
    unheard = only(ask(task, desk.replica(entry), Counts(pay=QueueCount(3, 0, 0)))).verdict

    assert ", for 1 h 5 min now, its deadline passed 5 min ago: " in late.waits_for
    assert unheard.waits_for.endswith("no consumer, its deadline passed 5 min ago")


@pytest.mark.parametrize(
    ("queues", "seconds", "expected"),
    [
        (
            {"pay": QueueCount(12, None, 0)},
            300.0,
            ("a consumer: queue pay has 12 ready and no consumer", None),
        ),
        (
            {"pay": QueueCount(12, 40, 3)},
            300.0,
            (
                "its turn in queue pay, for 5 min now: 12 ready, "
                "3 consumers are busy with 40 others",
                None,
            ),
        ),
        (
            {"pay": QueueCount(12, None, 1)},
            300.0,
            ("its turn in queue pay, for 5 min now: 12 ready, 1 consumer is there", None),
        ),
        (
            {"pay": QueueCount(0, 1, 1)},
            300.0,
            (
                "a worker's answer, for 5 min now: queue pay has 0 ready, "
                "1 at consumers, 1 consumer",
                None,
            ),
        ),
        (
            {"pay": QueueCount(0, 0, 1)},
            300.0,
            (LOST, "release TASK"),
        ),
        (
            {"pay": QueueCount(0, None, 0)},
            300.0,
            (
                "an answer that may never come, for 5 min now: queue pay is empty "
                "and nobody consumes; "
                "was it purged, or did a worker lose it?",
                "release TASK",
            ),
        ),
        (
            {"pay": QueueCount(0, 0, 1)},
            3.0,
            (
                "a worker's answer, for 3 s now: queue pay has 0 ready, 0 at consumers, 1 consumer",
                None,
            ),
        ),
        (
            {"pay": QueueCount(0, 1, 1), "bridge_parked": QueueCount(1, 0, 0)},
            300.0,
            (
                "a worker's answer, for 5 min now: queue pay has 0 ready, "
                "1 at consumers, 1 consumer",
                None,
            ),
        ),
        (
            {"pay": QueueCount(0, 0, 1), "bridge_parked": QueueCount(1, 0, 0)},
            300.0,
            (
                f"{LOST} Parked: 1 message, perhaps its answer (external-task-bridge parked list)",
                "release TASK",
            ),
        ),
        (
            {"pay": QueueCount(0, 0, 1), "bridge_wait": QueueCount(2, 0, 0)},
            300.0,
            (f"{LOST} In bridge.wait: 2 answers, tried again, perhaps its own", None),
        ),
        (
            {"pay": QueueCount(0, 0, 1), "pay_results": QueueCount(5, 0, 0)},
            300.0,
            ("a bridge: queue pay.results has 5 answers and no consumer", "check"),
        ),
        (
            {},
            300.0,
            ("an answer; queue pay does not exist, or must not be looked at", "check"),
        ),
    ],
)
def test_where_a_message_is_stuck_is_told(
    engine: Desk,
    ask: Any,
    queues: dict[str, QueueCount],
    seconds: float,
    expected: tuple[str, str | None],
) -> None:
    """Queue, worker, way back: three different people mend them."""
    task = in_flight(engine)
    waits_for, command = expected
    broker = Counts(None, **queues)

    verdict = only(ask(task, desk.replica(held(task, seconds)), broker)).verdict

    assert (verdict.state, verdict.waits_for) == ("in flight", waits_for)
    wanted = command and f"external-task-bridge {command.replace('TASK', task)}"
    assert verdict.command == wanted


def test_a_message_that_is_not_confirmed_is_told(engine: Desk, ask: Any) -> None:
    """A blocked or slow RabbitMQ, not a worker."""
    task = in_flight(engine)

    verdict = only(ask(task, desk.replica(held(task, confirmed=False)))).verdict

    assert verdict.waits_for == "RabbitMQ, which has not confirmed its message yet"


def test_an_exchange_of_others_is_named(engine: Desk, ask: Any) -> None:
    """Its queues are its owner's affair."""
    task = in_flight(engine)

    explained = only(ask(task, topics="[topics.pay]\nexchange = 'orders'"))

    assert explained.verdict.waits_for == "an answer; its message went to exchange orders"


# -- silent parts ----------------------------------------------------------------------------------


def test_a_silent_bridge_and_a_silent_broker_are_facts(engine: Desk, ask: Any) -> None:
    """Two parts down is when somebody asks."""
    task = in_flight(engine)

    explained = only(ask(task, NOBODY, Counts(problem="Connection refused")))

    assert said(explained, "bridge") == [desk.SILENT]
    assert said(explained, "broker") == ["cannot be asked: localhost:5672: Connection refused"]
    assert "RabbitMQ cannot be asked" in explained.verdict.waits_for
    assert any("locked by worker id bridge" in text for text in said(explained, "engine"))


def test_without_an_engine_the_bridges_memory_answers(engine: Desk, ask: Any) -> None:
    """By the task's id, the only name that it knows."""
    task = in_flight(engine)
    engine.simulated.stop()

    known, unknown = ask(task, desk.replica(held(task))), ask("nope", NOBODY)

    assert only(known).topic == "pay"
    assert only(known).verdict.waits_for.startswith("the engine: the engine at http://")
    assert "its message is in a queue" in said(only(known), "bridge")[0]
    assert unknown.found == "none"
    assert desk.SILENT in str(unknown.note)
    assert "start the engine" in str(unknown.engine_problem)


def test_the_document_has_what_the_page_shows(engine: Desk, ask: Any) -> None:
    """Names and shapes that scripts and the status page rely on."""
    task = engine.start(business_key="order-7")

    document = ask("order-7").as_json()

    assert {"schemaVersion", "key", "found", "note", "tasks"} == set(document)
    (shown,) = document["tasks"]
    assert (shown["taskId"], shown["topic"], shown["state"]) == (task, "pay", "waiting")
    assert (shown["waitsFor"], shown["command"]) == ("the bridge's next fetch", None)
    assert {"at", "source", "text"} == set(shown["facts"][0])
    assert str(shown["facts"][0]["at"]).endswith("Z")
