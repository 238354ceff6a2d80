"""What the lists of external tasks can be asked."""

from typing import Any

import pytest

from tests.integration.engine_contract.client import (
    TENANT,
    Engine,
    Json,
    new_topic,
    refused,
    suspend,
)
from tests.support.engine import process_xml, unique


class TestQueries:
    def test_by_worker_and_lock(self, engine: Engine, topic: str) -> None:
        """An expired task keeps its worker id but counts as not locked."""
        for _ in range(3):
            engine.start(topic)
        engine.one(topic, "alive", request={"maxTasks": 1})
        first = engine.one(topic, "crashed", lock_ms=50, request={"maxTasks": 1})
        engine.await_expiry(first)

        def count(**filters: Any) -> int:
            return engine.count(topicName=topic, **filters)

        assert count() == 3
        assert count(locked=True) == 1
        assert count(notLocked=True) == 2
        assert count(workerId="crashed") == 1
        assert count(workerId="crashed", locked=True) == 0
        assert count(workerId="alive", locked=True) == 1

    def test_by_a_list_of_ids_with_paging_and_sorting(self, engine: Engine, topic: str) -> None:
        """The bulk question before every renewal: filters in the body, paging in the query."""
        for priority in range(5):
            engine.start(topic, priority=priority)
        ids = [task["id"] for task in engine.fetch(topic)]
        body = {
            "externalTaskIdIn": [*ids, "finished long ago"],
            "sorting": [{"sortBy": "taskPriority", "sortOrder": "desc"}],
        }

        everything = engine.post("/external-task", body)
        part = engine.post("/external-task", body, firstResult=1, maxResults=2)

        assert [task["priority"] for task in everything] == [4, 3, 2, 1, 0]
        assert [task["priority"] for task in part] == [3, 2]
        assert engine.count(**body) == 5

    def test_an_empty_list_of_ids_is_no_filter(self, engine: Engine, task: Json) -> None:
        """It matches everything, so the bridge must never send it."""
        assert engine.count(externalTaskIdIn=[]) >= 1

    def test_by_retries_suspension_priority_and_process(self, engine: Engine, topic: str) -> None:
        """The operator's questions."""
        instance_id = engine.start(topic, priority=8)
        failed, held = engine.one(topic), engine.start(topic, business_key="b")
        engine.done(failed, "failure", retries=0)
        suspend(engine, held, suspended=True)

        def found(**filters: Any) -> set[str]:
            tasks = engine.post("/external-task", {"topicName": topic, **filters})
            return {task["processInstanceId"] for task in tasks}

        assert found(noRetriesLeft=True) == {instance_id}
        assert found(withRetriesLeft=True) == {held}
        assert found(suspended=True) == {held}
        assert found(active=True) == {instance_id}
        assert found(priorityHigherThanOrEquals=8) == {instance_id}
        assert found(priorityLowerThanOrEquals=7) == {held}
        assert found(processInstanceId=held) == {held}
        assert found(processInstanceIdIn=[held, "nope"]) == {held}
        assert found(activityId="work") == {instance_id, held}
        assert found(activityIdIn=["repair"]) == set()
        assert found(executionId=failed["executionId"]) == {instance_id}
        assert found(processDefinitionId=failed["processDefinitionId"]) == {instance_id, held}
        assert found(tenantIdIn=[TENANT]) == set()

    def test_by_lock_expiration(self, engine: Engine, topic: str, task: Json) -> None:
        """Dates go in the engine's own format."""
        past, future = "2001-01-01T00:00:00.000+0000", "2999-01-01T00:00:00.000+0000"

        assert engine.count(topicName=topic, lockExpirationBefore=future) == 1
        assert engine.count(topicName=topic, lockExpirationAfter=future) == 0
        assert engine.count(topicName=topic, lockExpirationAfter=past) == 1

    def test_get_takes_the_same_filters(self, engine: Engine, topic: str, task: Json) -> None:
        """Lists separated by commas; unknown parameters are ignored."""
        ids = f"{task['id']},nope"
        listed = engine.get("/external-task", externalTaskIdIn=ids, unheardOf="x")
        counted = engine.get("/external-task/count", topicName=topic, locked="true")

        assert [entry["id"] for entry in listed] == [task["id"]]
        assert counted == {"count": 1}
        assert "variables" not in listed[0]

    @pytest.mark.parametrize(
        ("parameters", "message"),
        [
            ({"sortBy": "nope", "sortOrder": "asc"}, "Cannot set query parameter 'sortBy' to .*"),
            ({"sortBy": "id", "sortOrder": "ASC"}, "Cannot set query parameter 'sortOrder' to .*"),
            ({"sortBy": "id"}, "Only a single sorting parameter specified. .*"),
            ({"locked": "perhaps"}, "Cannot set query parameter 'locked' to value 'perhaps': .*"),
            (
                {"lockExpirationBefore": "yesterday"},
                "Cannot set query parameter 'lockExpirationBefore' to value 'yesterday': .*",
            ),
        ],
    )
    def test_bad_parameters_are_refused(
        self, engine: Engine, parameters: Json, message: str
    ) -> None:
        """A configuration error, not an engine fault."""
        answer = engine.call("GET", "/external-task", **parameters)

        refused(answer, 400, "InvalidRequestException", message, None)

    def test_a_bad_sorting_in_the_body_is_refused(self, engine: Engine) -> None:
        """In the body it is another type than in the query string."""
        answer = engine.call("POST", "/external-task", {"sorting": [{"sortBy": "id"}]})

        refused(answer, 400, "NotValidException", "Invalid query: call asc.*", 0)

    def test_topic_names(self, engine: Engine, topic: str, task: Json) -> None:
        """The filters are joined: locked and unlocked at once is nothing."""
        path, waiting = "/external-task/topic-names", new_topic()
        engine.start(waiting)

        assert {topic, waiting} <= set(engine.get(path))
        locked = set(engine.get(path, withLockedTasks="true"))
        assert topic in locked
        assert waiting not in locked
        assert engine.get(path, withLockedTasks="true", withUnlockedTasks="true") == []

    def test_one_task(self, engine: Engine, task: Json) -> None:
        """The read before every /failure."""
        shown = engine.task(task)

        same = ("id", "topicName", "workerId", "retries", "lockExpirationTime", "createTime")
        assert {name: shown[name] for name in same} == {name: task[name] for name in same}
        refused(
            engine.call("GET", "/external-task/nope"),
            404,
            "RestException",
            "External task with id nope does not exist",
            None,
        )

    def test_error_details(self, engine: Engine, task: Json) -> None:
        """None is an empty 204; an unknown task is a 500 here."""
        answer = engine.call("GET", f"/external-task/{task['id']}/errorDetails")
        assert (answer.status_code, answer.content) == (204, b"")

        unknown = engine.call("GET", "/external-task/nope/errorDetails")
        message = "No external task found with id nope: externalTask is null"
        refused(unknown, 500, "NullValueException", message, 0)

    def test_the_latest_version_of_each_process(self, engine: Engine) -> None:
        """What is deployed, without the versions that only old instances still run."""
        key = unique("versions")
        for topics in (["first"], ["second"]):
            for tenant_id in (None, TENANT):
                engine.deploy_xml(process_xml(key, topics), tenant_id)

        def versions(**filters: Any) -> list[tuple[str, int]]:
            sort = {"sortBy": "version", "sortOrder": "asc"}
            found = engine.get("/process-definition", key=key, **sort, **filters)
            return sorted((str(d["tenantId"]), d["version"]) for d in found)

        latest = engine.get("/process-definition", latestVersion="true", key=key)
        models = [engine.get(f"/process-definition/{d['id']}/xml")["bpmn20Xml"] for d in latest]

        assert versions() == [(t, v) for t in ("None", TENANT) for v in (1, 2)]
        assert versions(latestVersion="true") == [("None", 2), (TENANT, 2)]
        assert all("second" in model and "first" not in model for model in models)
