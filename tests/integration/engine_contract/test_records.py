"""What the operator's commands read of an engine, and the two things that they do to it."""

from __future__ import annotations

import pytest

from bridge.engine.connection import HttpOptions
from bridge.engine.records import EngineRecords
from bridge.errors import LockExpired, LockLost, TaskGone, TaskSuspended
from tests.integration.engine_contract.client import (
    Engine,
    Json,
    eventually,
    new_topic,
    suspend,
)


@pytest.fixture
def records(engine: Engine) -> EngineRecords:
    return EngineRecords(HttpOptions(engine.url))


def failed(engine: Engine, topic: str, retries: int = 0, message: str = "no money") -> Json:
    """A task whose attempt has failed."""
    task = engine.one(topic)
    engine.done(task, "failure", retries=retries, retryTimeout=60_000, errorMessage=message)
    return task


def expired(records: EngineRecords, task: Json) -> bool:
    """Whether a release finds nothing more to release."""
    try:
        records.release(task["id"], "w")
    except LockExpired:
        return True
    return False


def test_tasks_are_listed_oldest_first_and_by_process(
    engine: Engine, records: EngineRecords, topic: str
) -> None:
    """A filter that an engine does not know must not let through what it should hold back."""
    first = engine.start(topic, business_key="order-1")
    second = engine.start(topic)

    found = records.tasks(topicName=topic)

    assert [task.process_instance_id for task in found] == [first, second]
    assert [task.business_key for task in found] == ["order-1", None]
    assert found[0].process_definition_key == "contract-task"
    assert records.tasks(1, topicName=topic) == found[:1]
    assert records.tasks(topicName=topic, processDefinitionKey="contract-task") == found
    assert records.tasks(topicName=topic, processDefinitionKey="another") == []
    assert records.count_tasks(topicName=topic) == 2
    assert topic in records.topic_names()


def test_ids_that_are_unknown_are_left_out(engine: Engine, records: EngineRecords) -> None:
    """What was completed meanwhile is no error; no id at all asks for nothing."""
    engine.start(topic := new_topic())
    task = engine.one(topic)

    assert list(records.tasks_by_id([task["id"], "nope"])) == [task["id"]]
    assert records.tasks_by_id([]) == {}


def test_an_incident_names_its_task(engine: Engine, records: EngineRecords, topic: str) -> None:
    """Its configuration is the task; the process goes by its key."""
    instance = engine.start(topic)
    task = failed(engine, topic)

    (incident,) = records.incidents(query={"processInstanceId": instance})

    assert (incident.task_id, incident.incident_message) == (task["id"], "no money")
    assert abs(records.now() - incident.raised) < 60
    known = records.incidents(query={"processDefinitionKeyIn": "contract-task"})
    assert incident in known
    assert records.incidents(query={"processDefinitionKeyIn": "another"}) == []


def test_retries_of_many_are_set_at_once_or_not_at_all(
    engine: Engine, records: EngineRecords, topic: str
) -> None:
    """One that is gone spoils the call for the others, which the caller must then name alone."""
    instance = engine.start(topic)
    task = failed(engine, topic)

    with pytest.raises(TaskGone):
        records.set_retries([task["id"], "nope"], 1)
    assert engine.task(task)["retries"] == 0
    records.set_retries([task["id"]], 1)

    assert engine.task(task)["retries"] == 1
    assert records.incidents(query={"processInstanceId": instance}) == []


def test_a_task_without_retries_can_be_released(
    engine: Engine, records: EngineRecords, topic: str
) -> None:
    """The pause after its last failure ends by it; offered it is only once it has retries."""
    engine.start(topic)
    task = failed(engine, topic)

    records.release(task["id"], "w")
    engine.await_expiry(task)

    assert engine.fetch(topic) == []
    records.set_retries([task["id"]], 1)
    assert engine.one(topic)["id"] == task["id"]


def test_a_release_checks_the_owner(
    engine: Engine, records: EngineRecords, topic: str, task: Json
) -> None:
    """Nobody else's task is ever given away."""
    with pytest.raises(LockLost) as lost:
        records.release(task["id"], "stranger")
    assert lost.value.owner == "w"

    suspend(engine, task["processInstanceId"], suspended=True)
    with pytest.raises(TaskSuspended):
        records.release(task["id"], "w")
    suspend(engine, task["processInstanceId"], suspended=False)

    eventually(lambda: expired(records, task))  # in its last millisecond a lock still counts
    with pytest.raises(TaskGone):
        records.release("nope", "w")


def test_an_instance_is_found_by_id_and_by_business_key(
    engine: Engine, records: EngineRecords, topic: str
) -> None:
    """While it runs; the key must be exactly this one."""
    instance = engine.start(topic, business_key=f"order-{topic}")
    suspend(engine, instance, suspended=True)

    found = records.process_instance(instance)

    assert found is not None
    assert (found.id, found.business_key, found.suspended) == (instance, f"order-{topic}", True)
    assert records.process_instances(f"order-{topic}") == [found]
    assert records.process_instances("order") == []
    assert records.called_by(instance) == []
    assert records.process_instance("nope") is None


def test_the_history_tells_of_what_has_ended(
    engine: Engine, records: EngineRecords, topic: str
) -> None:
    """Who asks for a task that is done must hear when."""
    instance = engine.start(topic, business_key=f"order-{topic}")
    task = failed(engine, topic, retries=1)
    engine.done(task, "complete")

    rows = records.task_log(externalTaskId=task["id"])
    past = records.past_instance(instance)

    kinds = [(row.creation_log, row.failure_log, row.success_log) for row in rows]
    assert kinds == [(True, False, False), (False, True, False), (False, False, True)]
    assert rows[1].error_message == "no money"
    assert [row.at for row in rows] == sorted(row.at for row in rows)
    assert records.task_log(processInstanceId=instance) == rows
    assert past is not None
    assert (past.state, past.process_definition_key) == ("COMPLETED", "contract-task")
    assert past.end_time is not None
    assert records.past_instances(f"order-{topic}") == [past]
    assert records.past_instance("nope") is None
    assert records.task_log(externalTaskId="nope") == []
