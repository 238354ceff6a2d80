"""Workers that die, answer twice, too late, or for somebody else: each task is done once."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.simulated_engine import SimulatedEngine, linear_process
from bridge.tokens import TokenSigner
from tests.support.amqp import Amqp, Message, Reply
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.stage import Case, Stage
from tests.support.waiting import eventually, throughout

# A task of `filtered` is offered only while its instance's variable `go` is true.
TOPICS: dict[str, dict[str, Any]] = {
    "plain": {},
    "other": {},
    "twice": {},
    "crossed": {},
    "unknown": {},
    "filtered": {"process_variables": {"go": True}},
}
GO = {"go": {"value": True, "type": "Boolean"}}
THIEF = "another-worker"


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


# Before the acknowledgement


def take(amqp: Amqp, queue: str, instance: str) -> Message | None:
    """This instance's message, not acknowledged; it goes back when the connection is closed."""
    method, properties, body = amqp.channel.basic_get(queue)
    if method is None:
        return None
    message = Message(body, properties, method.redelivered)
    assert message.headers["processInstanceId"] == instance
    return message


def test_a_worker_that_dies_before_it_answers_is_followed_by_another(stage: Stage) -> None:
    """The broker delivers again what was not acknowledged; the engine sees one attempt."""
    case = stage.begin("plain")
    with Amqp(stage.url) as dying:
        first = eventually(lambda: take(dying, case.queue, case.instance))
    assert first is not None

    second = case.message()

    assert second.redelivered
    assert second.properties.message_id == first.properties.message_id
    stage.answer(second, {"by": "second"})
    assert case.end() == "end"
    assert case.variables()["by"]["value"] == "second"


def test_a_worker_that_dies_between_answer_and_acknowledgement_answers_twice(stage: Stage) -> None:
    """Both answers carry the same token; the task is completed once, with the first."""
    case = stage.begin("twice")
    gone = stage.count("twice", "gone")
    with Amqp(stage.url) as dying:
        first = eventually(lambda: take(dying, case.queue, case.instance))
        assert first is not None
        dying.answer(first, Reply({"by": "first"}))
    second = case.message()
    assert second.redelivered

    stage.answer(second, {"by": "second"})

    eventually(lambda: stage.count("twice", "gone") == gone + 1)
    assert case.end() == "end"
    assert case.variables()["by"]["value"] == "first"


# Two answers that contradict each other


def test_a_failure_after_a_completion_changes_nothing(stage: Stage) -> None:
    """The first answer wins: there is nothing left that could fail."""
    case = stage.begin("twice")
    gone = stage.count("twice", "gone")
    message = case.message()

    stage.answer(message, {"done": True})
    stage.answer(message, {"errorMessage": "no"}, "failure")

    eventually(lambda: stage.count("twice", "gone") == gone + 1)
    assert case.end() == "end"
    assert stage.engine.incidents(case.key) == []


def test_a_completion_after_a_failure_of_the_same_attempt_ends_the_task(stage: Stage) -> None:
    """The work is done, whatever its worker thought before: no second attempt."""
    case = stage.begin("twice")
    message = case.message()

    stage.answer(message, {"errorMessage": "timeout", "retryTimeout": 3_600_000}, "failure")
    eventually(lambda: case.retries() == 2)
    stage.answer(message, {"done": True})

    assert case.end() == "end"
    assert case.variables()["done"]["value"] is True


def test_two_failures_of_one_attempt_cost_one_retry(stage: Stage) -> None:
    """A worker that reports twice must not use up its task's retries."""
    case = stage.begin("twice")
    message, stale = case.message(), stage.count("twice", "stale")
    later = {"errorMessage": "no", "retryTimeout": 3_600_000}

    stage.answer(message, later, "failure")
    stage.answer(message, later, "failure")

    eventually(lambda: stage.count("twice", "stale") == stale + 1)
    assert case.retries() == 2


# For another task, topic or engine


def test_an_answer_for_a_task_that_never_was_is_acknowledged(stage: Stage) -> None:
    """The engine knows nothing of it, and nothing can be shown to anybody."""
    topic = stage.names["unknown"]
    token = TokenSigner(None).make(str(uuid.uuid4()), None, topic)

    stage.amqp.send("", f"{topic}.results", b"{}", correlation_id=token)

    eventually(lambda: stage.count("unknown", "gone") == 1)
    assert stage.count("unknown", "parked") == 0


def test_answers_that_are_crossed_between_topics_change_no_task(stage: Stage) -> None:
    """A worker's token counts in its own topic's queue only; both go on unharmed."""
    mine, yours = stage.begin("crossed"), stage.begin("other")
    messages = {"crossed": mine.message(), "other": yours.message()}

    for sent, queue in (("crossed", "other"), ("other", "crossed")):
        token = messages[sent].properties.correlation_id
        stage.amqp.send("", f"{stage.names[queue]}.results", b'{"wrong": 1}', correlation_id=token)

        assert stage.parked(token).headers["reason"] == "bad-token"

    for case, message in ((mine, messages["crossed"]), (yours, messages["other"])):
        stage.answer(message, {"right": True})
        assert case.end() == "end"
        assert "wrong" not in case.variables()


def test_an_answer_with_the_token_of_another_task_finishes_that_one(stage: Stage) -> None:
    """The token alone says whose answer it is: properties and body may claim what they like."""
    mine, yours = stage.begin("crossed"), stage.begin("crossed")
    message = mine.message()
    task = yours.task()
    assert task is not None

    stage.amqp.send(
        "",
        f"{mine.topic}.results",
        b'{"taskId": "%s"}' % task["id"].encode(),
        correlation_id=message.properties.correlation_id,
        message_id=f"{task['id']}:-",
        headers={"taskId": task["id"], "processInstanceId": yours.instance},
    )

    assert mine.end() == "end"
    assert yours.retries() is None


# Too late


def unlocked(stage: Stage) -> tuple[Case, Message]:
    """A task in a worker's hands that an operator has unlocked, and that nobody may fetch."""
    case = stage.begin("filtered", GO)
    message = case.message()
    task = case.task()
    assert task is not None
    variable = f"/process-instance/{case.instance}/variables/go"
    stage.engine.call("PUT", variable, {"value": False, "type": "Boolean"})
    stage.engine.call("POST", f"/external-task/{task['id']}/unlock")
    return case, message


def owner(case: Case) -> str | None:
    task = case.task()
    assert task is not None
    found: str | None = task["workerId"]
    return found


def test_an_answer_after_an_operator_unlocked_the_task_is_saved(stage: Stage) -> None:
    """The work is done and nobody else has begun it: it is locked again and completed."""
    case, message = unlocked(stage)
    assert owner(case) is None

    stage.answer(message, {"done": True})

    assert case.end() == "end"
    assert case.variables()["done"]["value"] is True


@pytest.mark.parametrize("outcome", [None, "bpmnError"])
def test_an_answer_for_a_task_that_another_worker_id_holds_is_parked(
    stage: Stage, outcome: str | None
) -> None:
    """Whoever locked it is at work: the answer is kept for a person and costs no retry."""
    case, message = unlocked(stage)
    task = case.task()
    assert task is not None
    lock = {"workerId": THIEF, "lockDuration": 600_000}
    stage.engine.call("POST", f"/external-task/{task['id']}/lock", lock)

    stage.answer(message, {"errorCode": "E1"}, outcome)

    parked = stage.parked(message.properties.correlation_id)
    assert parked.headers["reason"] == "lock-lost"
    assert (owner(case), case.retries()) == (THIEF, None)
    assert stage.engine.incidents(case.key) == []


@pytest.mark.parametrize("outcome", ["failure", "extendLock", "unlock"])
def test_a_word_on_a_task_that_another_worker_id_holds_is_stale(stage: Stage, outcome: str) -> None:
    """Nothing is lost with it, and the other worker's lock stays as it is."""
    case, message = unlocked(stage)
    task, stale = case.task(), stage.count("filtered", "stale")
    assert task is not None
    lock = {"workerId": THIEF, "lockDuration": 600_000}
    stage.engine.call("POST", f"/external-task/{task['id']}/lock", lock)
    held = case.task()

    stage.answer(message, {}, outcome)

    eventually(lambda: stage.count("filtered", "stale") == stale + 1)
    assert case.task() == held


@pytest.fixture
def simulated() -> Iterator[SimulatedEngine]:
    with SimulatedEngine() as engine:
        yield engine


def test_an_answer_after_the_lock_ran_out_is_applied(
    simulated: SimulatedEngine, amqp_url: str
) -> None:
    """No replica lived to renew it, and none has fetched the task again."""
    topic = unique("late")
    simulated.deploy(linear_process("late", topic))
    simulated.start_process("late")
    keys = settings(simulated.url, amqp_url, {topic: {}})
    with Amqp(amqp_url) as amqp:
        with Bridge(keys) as dying:
            message = eventually(lambda: amqp.get(topic))
            assert message is not None
            dying.kill()
        simulated.clock.advance(3600)
        amqp.answer(message, Reply({"n": 1}))

        with Bridge(keys):
            eventually(lambda: not simulated.tasks())

        assert [call.status for call in simulated.calls.of("complete")] == [204]
        assert simulated.calls.of("failure") == ()


def test_an_answer_after_the_task_was_fetched_again_is_applied(
    simulated: SimulatedEngine, amqp_url: str
) -> None:
    """The lock ran out and the message came a second time: either answer ends the task, the other
    one is acknowledged.
    """
    topic = unique("late")
    simulated.deploy(linear_process("late", topic))
    simulated.start_process("late")
    with (
        Amqp(amqp_url) as amqp,
        Bridge(settings(simulated.url, amqp_url, {topic: {}})) as bridge,
    ):
        first = eventually(lambda: amqp.get(topic))
        simulated.clock.advance(3600)
        second = eventually(lambda: amqp.get(topic), 60, what="it is offered again")
        assert first is not None
        assert second is not None
        assert second.properties.message_id == first.properties.message_id

        amqp.answer(first, Reply({"n": 1}))
        eventually(lambda: not simulated.tasks())
        amqp.answer(second, Reply({"n": 2}))

        eventually(lambda: bridge.count(topic, "gone") == 1)
        throughout(lambda: bridge.count(topic, "parked") == 0, 0.2)
        assert bridge.count(topic, "completed") == 1
