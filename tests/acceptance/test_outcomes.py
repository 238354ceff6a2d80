"""Each outcome of a task, through the whole service on a real engine and a real RabbitMQ."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.amqp import Reply, Worker
from tests.support.bridge import Bridge, settings
from tests.support.engine import EngineRest, unique
from tests.support.stage import Stage
from tests.support.waiting import eventually

TOPICS: dict[str, dict[str, Any]] = {
    "charge": {},
    "local": {"result_scope": "local"},
    "rate": {"result_variable": "rate"},
    "notify": {"reply": "none"},
    "once": {"retries": 1},
    "twice": {"retries": 2},
    "stale": {},
    "one-slot": {"max_in_flight": 1},
}


@pytest.fixture(scope="module")
def stage(engine: EngineRest, shared_amqp_url: str) -> Iterator[Stage]:
    with Stage(engine, shared_amqp_url, TOPICS) as stage:
        yield stage


def test_a_worker_needs_nothing_but_a_queue_and_a_reply(engine: EngineRest, amqp_url: str) -> None:
    """The least a worker must do: consume, answer with a JSON object, acknowledge."""
    topic = unique("charge")
    key = engine.deploy_topics(topic)
    instance = engine.start(key, {"amount": {"value": 5, "type": "Integer"}}, business_key="b-1")

    with (
        Bridge(settings(engine.url, amqp_url, {topic: {}})),
        Worker(amqp_url, topic, lambda m: Reply({"doubled": 2 * m.json["variables"]["amount"]})),
    ):
        eventually(lambda: engine.finished(key) == 1)

    assert engine.history_variables(instance)["doubled"] == {"value": 10, "type": "Integer"}


def test_an_empty_body_completes_without_variables(stage: Stage) -> None:
    """A worker that has nothing to say is done all the same."""
    case = stage.begin("charge")

    stage.answer(case.message(), b"")

    assert case.end() == "end"
    assert case.variables() == {}


def test_a_typed_value_keeps_its_type(stage: Stage) -> None:
    """Where plain JSON cannot tell, the worker says it in the engine's own words."""
    case = stage.begin("charge")

    stage.answer(case.message(), {"total": {"value": 7, "type": "Long"}})

    case.end()
    assert case.variables() == {"total": {"value": 7, "type": "Long"}}


def test_local_results_stay_with_the_task(stage: Stage) -> None:
    """`result_scope = "local"`: parallel branches do not overwrite each other's answers."""
    case = stage.begin("local")

    stage.answer(case.message(), {"score": 1})

    case.end()
    variable = stage.engine.history_variable(case.instance, "score")
    assert variable["activityInstanceId"].startswith("task-1:")


def test_a_bare_value_goes_to_the_result_variable(stage: Stage) -> None:
    """For workers that return a value, not an object."""
    case = stage.begin("rate")

    stage.answer(case.message(), 0.25)

    case.end()
    assert case.variables() == {"rate": {"value": 0.25, "type": "Double"}}


def test_complete_as_the_engine_writes_it_sets_both_scopes(stage: Stage) -> None:
    """With an outcome the body is the engine's own request."""
    case = stage.begin("charge")

    stage.answer(
        case.message(), {"variables": {"a": 1}, "localVariables": {"b": 2}}, outcome="complete"
    )

    case.end()
    scopes = {
        name: stage.engine.history_variable(case.instance, name)["activityInstanceId"]
        for name in ("a", "b")
    }
    assert scopes["a"] == case.instance
    assert scopes["b"].startswith("task-1:")


def test_the_outcome_may_stand_in_the_body(stage: Stage) -> None:
    """For stacks that cannot set headers."""
    case = stage.begin("charge", error_codes=["DECLINED"])

    stage.answer(case.message(), {"$outcome": "bpmnError", "errorCode": "DECLINED"})

    assert case.end() == "caught-DECLINED-1"


def test_a_result_may_come_by_the_results_exchange(stage: Stage) -> None:
    """The way for workers whose rights end at an exchange: its routing key is the topic."""
    case = stage.begin("charge")
    token = case.message().properties.correlation_id

    stage.amqp.send("bridge.results", case.topic, b'{"via":"exchange"}', correlation_id=token)

    case.end()
    assert case.variables()["via"]["value"] == "exchange"


def test_a_boundary_event_catches_a_bpmn_error_with_its_variables(stage: Stage) -> None:
    """A business error is a path of the process, no failure."""
    case = stage.begin("charge", error_codes=["DECLINED"])

    body = {"errorCode": "DECLINED", "errorMessage": "no funds", "variables": {"missing": 12}}
    stage.answer(case.message(), body, outcome="bpmnError")

    assert case.end() == "caught-DECLINED-1"
    assert case.variables()["missing"] == {"value": 12, "type": "Integer"}


def test_a_failure_is_tried_again_by_the_topics_policy(stage: Stage) -> None:
    """The next attempt has its own message id and tells what went wrong before."""
    case = stage.begin("twice")
    first = case.message()

    stage.answer(first, {"errorMessage": "timeout"}, outcome="failure")

    second = case.message()
    assert first.properties.message_id == f"{first.headers['taskId']}:-"
    assert second.properties.message_id == f"{first.headers['taskId']}:1"
    assert (second.headers["retries"], second.json["errorMessage"]) == (1, "timeout")
    stage.answer(second)
    assert case.end() == "end"


def test_a_failure_may_name_retries_and_pause(stage: Stage) -> None:
    """The worker knows best; the pause is the engine's `retryTimeout`, in milliseconds."""
    case = stage.begin("charge")

    body = {"errorMessage": "later", "retries": 5, "retryTimeout": 600_000}
    stage.answer(case.message(), body, outcome="failure")

    eventually(lambda: case.retries() == 5)
    task = case.task()
    assert task is not None
    assert lock_left(task["lockExpirationTime"]) > timedelta(minutes=9)


def test_the_last_failure_raises_an_incident(stage: Stage) -> None:
    """What no attempt can mend is for an operator, with message and details."""
    case = stage.begin("once")
    message = case.message()

    body = {"errorMessage": "account closed", "errorDetails": "at line 7"}
    stage.answer(message, body, outcome="failure")

    assert case.incident() == "account closed"
    assert stage.engine.error_details(message.headers["taskId"]) == "at line 7"
    assert case.retries() == 0


def test_a_failure_of_an_older_attempt_is_dropped(stage: Stage) -> None:
    """A late word of an attempt that failed already must not cost the next one."""
    case = stage.begin("stale")
    first = case.message()
    stage.answer(first, {"errorMessage": "once"}, outcome="failure")
    second = case.message()

    stage.answer(first, {"errorMessage": "again"}, outcome="failure")

    eventually(lambda: stage.count("stale", "stale") == 1)
    assert case.retries() == 2
    stage.answer(second)
    case.end()


def test_a_success_of_an_older_attempt_is_applied(stage: Stage) -> None:
    """The work is done, whichever attempt did it."""
    case = stage.begin("charge")
    message = case.message()
    body = {"errorMessage": "slow", "retries": 2, "retryTimeout": 600_000}
    stage.answer(message, body, outcome="failure")
    eventually(lambda: case.retries() == 2)

    stage.answer(message, {"done": True})

    assert case.end() == "end"


def test_progress_extends_the_lock_and_sets_variables(stage: Stage) -> None:
    """A long job stays its worker's, and the process sees how far it is."""
    case = stage.begin("charge")
    message = case.message()

    body = {"newDuration": 3_600_000, "variables": {"percent": 40}}
    stage.answer(message, body, outcome="extendLock")

    eventually(lambda: case.variables().get("percent") == {"value": 40, "type": "Integer"})

    def left() -> timedelta:
        task = case.task()
        assert task is not None
        return lock_left(task["lockExpirationTime"])

    eventually(lambda: left() > timedelta(minutes=59))
    stage.answer(message, {"percent": 100})
    case.end()
    assert case.variables()["percent"]["value"] == 100


def test_a_task_given_back_is_offered_again(stage: Stage) -> None:
    """Giving back is no failure: the same attempt comes again, with the same message id."""
    case = stage.begin("charge")
    first = case.message()

    stage.answer(first, {}, outcome="unlock")

    second = case.message()
    assert second.properties.message_id == first.properties.message_id
    assert case.retries() is None
    stage.answer(second)
    case.end()


def test_a_consumer_that_never_answers_completes_by_taking(stage: Stage) -> None:
    """`reply = "none"`: done once a queue holds the message."""
    case = stage.begin("notify")

    assert case.end() == "end"

    assert case.message().headers["processInstanceId"] == case.instance


def test_a_task_that_is_gone_is_announced(stage: Stage) -> None:
    """A worker that is still busy with a cancelled task can stop early."""
    case = stage.begin("one-slot")
    task_id = case.message().headers["taskId"]
    channel = stage.amqp.channel
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, "bridge.gone", case.topic)

    stage.engine.delete(case.instance)

    notice = eventually(lambda: stage.amqp.get(queue))
    assert notice is not None
    assert json.loads(notice.body) == {"taskId": task_id}


def lock_left(expiration: str) -> timedelta:
    return datetime.fromisoformat(expiration) - datetime.now(UTC)
