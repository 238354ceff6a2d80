"""What fetchAndLock gives to whom, in which order, and what wakes a long poll."""

import threading
import time
from typing import Any

import pytest
import requests

from tests.integration.engine_contract.client import TENANT, Engine, Json, new_topic, suspend


def poll_in_background(
    engine: Engine, topic: str, limit_ms: int
) -> tuple[threading.Thread, list[Any]]:
    """A long poll in another thread, and the list in which its answer will lie."""
    answers: list[Any] = []
    body = {
        "workerId": "poller",
        "maxTasks": 5,
        "asyncResponseTimeout": limit_ms,
        "topics": [{"topicName": topic, "lockDuration": 60_000}],
    }

    def poll() -> None:
        url = f"{engine.url}/external-task/fetchAndLock"
        answers.append(requests.post(url, json=body, timeout=60).json())

    thread = threading.Thread(target=poll)
    thread.start()
    return thread, answers


class TestFetchAndLock:
    def test_a_fetched_task_has_every_member_the_bridge_reads(
        self, engine: Engine, topic: str
    ) -> None:
        """The bridge builds its messages from these members."""
        instance_id = engine.start(topic, {"n": {"value": 5}}, business_key="order 7")

        task = engine.one(topic, includeExtensionProperties=True)

        assert task["processInstanceId"] == instance_id
        assert task["executionId"] != instance_id
        expected = {
            "topicName": topic,
            "workerId": "w",
            "retries": None,
            "priority": 0,
            "errorMessage": None,
            "errorDetails": None,
            "processDefinitionKey": "contract-task",
            "processDefinitionVersionTag": "release-1.2",
            "activityId": "work",
            "tenantId": None,
            "businessKey": "order 7",
            "suspended": False,
            "extensionProperties": {"retryPauses": "5s, 30s", "owner": "contract"},
        }
        assert {name: task[name] for name in expected} == expected
        assert task["variables"]["n"] == {"value": 5, "type": "Integer", "valueInfo": {}}
        assert task["createTime"][10] == "T"
        assert task["lockExpirationTime"][-5] in "+-"

    def test_a_locked_task_is_given_to_nobody_not_even_its_owner(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """A second delivery inside the lock would be a duplicate."""
        assert engine.fetch(topic, "other") == []
        assert engine.fetch(topic, task["workerId"]) == []

    def test_an_expired_lock_lets_another_worker_fetch(self, engine: Engine, topic: str) -> None:
        """This is how tasks of a dead bridge come back."""
        engine.start(topic)
        first = engine.one(topic, "first", lock_ms=100)

        engine.await_expiry(first)
        second = engine.one(topic, "second")

        assert second["id"] == first["id"]
        assert second["workerId"] == "second"
        assert second["retries"] is None  # expiry costs no retry

    def test_max_tasks_bounds_the_answer_over_all_topics(self, engine: Engine) -> None:
        """It is the number of tasks of the whole request, not of each topic."""
        topics = [new_topic(), new_topic()]
        for topic in topics * 2:
            engine.start(topic)
        entries = [{"topicName": topic, "lockDuration": 60_000} for topic in topics]
        body = {"workerId": "w", "maxTasks": 3, "topics": entries}

        first = engine.post("/external-task/fetchAndLock", body)
        rest = engine.post("/external-task/fetchAndLock", body)

        assert (len(first), len(rest)) == (3, 1)

    def test_max_tasks_0_or_absent_gives_nothing(self, engine: Engine, topic: str) -> None:
        """A forgotten maxTasks is 0 for the engine."""
        engine.start(topic)
        entry = {"topicName": topic, "lockDuration": 60_000}

        assert engine.fetch(topic, request={"maxTasks": 0}) == []
        body = {"workerId": "w", "topics": [entry]}
        assert engine.post("/external-task/fetchAndLock", body) == []

    def test_of_two_entries_of_one_topic_the_last_counts(self, engine: Engine, topic: str) -> None:
        """Two settings for one topic cannot be put into one request."""
        engine.start(topic)
        wanting = {"topicName": topic, "lockDuration": 60_000}
        refusing = wanting | {"businessKey": "nobody has this"}

        def fetch(*entries: Json) -> list[Json]:
            body = {"workerId": "w", "maxTasks": 5, "topics": list(entries)}
            return list(engine.post("/external-task/fetchAndLock", body))

        assert fetch(wanting, refusing) == []
        assert len(fetch(refusing, wanting)) == 1

    def test_without_topics_the_answer_is_empty(self, engine: Engine) -> None:
        """No topic has room: an empty request is harmless."""
        for body in (
            {"workerId": "w", "maxTasks": 1},
            {"workerId": "w", "maxTasks": 1, "topics": []},
        ):
            assert engine.post("/external-task/fetchAndLock", body) == []

    def test_priority_sorts_only_when_asked(self, engine: Engine, topic: str) -> None:
        """usePriority is false unless sent."""
        for priority in (1, 9, 5):
            engine.start(topic, priority=priority)

        tasks = engine.fetch(topic, request={"usePriority": True})

        assert [task["priority"] for task in tasks] == [9, 5, 1]

    @pytest.mark.parametrize("order", ["asc", "desc"])
    def test_create_time_sorts(self, engine: Engine, topic: str, order: str) -> None:
        """Oldest first keeps a task from starving."""
        for _ in range(4):
            engine.start(topic)

        sorting = [{"sortBy": "createTime", "sortOrder": order}]
        tasks = engine.fetch(topic, request={"sorting": sorting})

        times = [task["createTime"] for task in tasks]
        assert len(times) == 4
        assert times == sorted(times, reverse=order == "desc")

    def test_priority_comes_before_create_time(self, engine: Engine, topic: str) -> None:
        """Both may be asked for at once."""
        for priority in (0, 7, 0, 7):
            engine.start(topic, priority=priority)

        sorting = [{"sortBy": "createTime", "sortOrder": "asc"}]
        tasks = engine.fetch(topic, request={"usePriority": True, "sorting": sorting})

        found = [(-task["priority"], task["createTime"]) for task in tasks]
        assert [priority for priority, _ in found] == [-7, -7, 0, 0]
        assert found == sorted(found)

    def test_a_task_without_retries_is_not_fetchable(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """It waits for an operator."""
        engine.done(task, "failure", retries=0)
        assert engine.fetch(topic) == []

        engine.call("PUT", f"/external-task/{task['id']}/retries", {"retries": 1})
        assert engine.one(topic)["retries"] == 1

    def test_a_suspended_task_is_not_fetchable(self, engine: Engine, topic: str) -> None:
        """A suspended process must not go on."""
        instance_id = engine.start(topic)
        suspend(engine, instance_id, suspended=True)
        assert engine.fetch(topic) == []

        suspend(engine, instance_id, suspended=False)
        assert len(engine.fetch(topic)) == 1

    def test_parallel_tasks_of_one_instance_are_fetched_together_and_joined(
        self, engine: Engine, topic: str
    ) -> None:
        """Two tasks of one instance may be in flight at once."""
        instance_id = engine.start(topic, key="contract-parallel")
        left, right = engine.fetch(topic)
        assert {left["activityId"], right["activityId"]} == {"left", "right"}

        engine.done(left, "complete")
        assert engine.state_of(instance_id) == "ACTIVE"
        engine.done(right, "complete")

        assert engine.state_of(instance_id) == "COMPLETED"


class TestFetchFilters:
    def fetched(self, engine: Engine, topic: str, **members: Any) -> set[str]:
        """The instances whose tasks the filter lets through; they stay fetchable."""
        tasks = engine.fetch(topic, **members)
        for task in tasks:
            engine.call("POST", f"/external-task/{task['id']}/unlock")
        return {task["processInstanceId"] for task in tasks}

    def test_business_key(self, engine: Engine, topic: str) -> None:
        """Only instances of that business key."""
        wanted = engine.start(topic, business_key="a")
        engine.start(topic, business_key="b")

        assert self.fetched(engine, topic, businessKey="a") == {wanted}

    def test_process_definition(self, engine: Engine, topic: str) -> None:
        """By key, keys, id and ids; an empty list is no filter."""
        one = engine.start(topic)
        chain = engine.start(topic, key="contract-chain")
        ids = {
            key: engine.get(f"/process-definition/key/{key}")["id"]
            for key in ("contract-task", "contract-chain")
        }

        def found(**members: Any) -> set[str]:
            return self.fetched(engine, topic, **members)

        assert found(processDefinitionKey="contract-chain") == {chain}
        assert found(processDefinitionKeyIn=["contract-task", "nope"]) == {one}
        assert found(processDefinitionId=ids["contract-task"]) == {one}
        assert found(processDefinitionIdIn=[ids["contract-chain"], "nope"]) == {chain}
        assert found(processDefinitionKeyIn=[], processDefinitionIdIn=[]) == {one, chain}

    @pytest.mark.parametrize(
        ("tag", "matches"),
        [("release-1.2", True), ("release%", True), ("release-_._", True), ("release", False)],
    )
    def test_version_tag_is_an_sql_like(
        self, engine: Engine, topic: str, tag: str, matches: bool
    ) -> None:
        """`%` and `_` are wildcards; a definition without a tag never matches."""
        tagged = engine.start(topic)
        engine.start(topic, key="contract-chain")

        found = self.fetched(engine, topic, processDefinitionVersionTag=tag)

        assert found == ({tagged} if matches else set())

    def test_tenants(self, engine: Engine, topic: str) -> None:
        """tenantIdIn wins over withoutTenantId; neither means all."""
        nobodys = engine.start(topic)
        theirs = engine.start(topic, tenant_id=TENANT)

        def found(**members: Any) -> set[str]:
            return self.fetched(engine, topic, **members)

        assert found() == {nobodys, theirs}
        assert found(withoutTenantId=True) == {nobodys}
        assert found(tenantIdIn=[TENANT, "nope"]) == {theirs}
        assert found(withoutTenantId=True, tenantIdIn=[TENANT]) == {theirs}
        assert found(tenantIdIn=["nope"]) == set()

    def test_process_variables_are_joined_by_or(self, engine: Engine, topic: str) -> None:
        """Several names are alternatives, compared with the type that JSON gives them."""
        five = engine.start(topic, {"n": {"value": 5}, "colour": {"value": "red"}})
        six = engine.start(topic, {"n": {"value": 6}, "colour": {"value": "blue"}})
        engine.start(topic, {"n": {"value": 5, "type": "Long"}})

        def found(**variables: Any) -> set[str]:
            return self.fetched(engine, topic, processVariables=variables)

        assert found(n=5) == {five}
        assert found(n=5, colour="blue") == {five, six}
        assert found(nope=1) == set()

    def test_a_local_variable_is_no_process_variable(self, engine: Engine, topic: str) -> None:
        """The filter looks at the process instance's own variables only."""
        engine.start(topic)
        task = engine.one(topic)
        local = {"here": {"value": 1}}
        engine.done(task, "failure", retries=1, localVariables=local)

        assert self.fetched(engine, topic, processVariables={"here": 1}) == set()


class TestVariableSelection:
    def test_absent_or_null_means_all_and_a_list_names_them(
        self, engine: Engine, topic: str
    ) -> None:
        """`[]` means none: the cheap way when a worker needs no variables."""
        engine.start(topic, {"a": {"value": 1}, "b": {"value": 2}})

        def names(**members: Any) -> set[str]:
            task = engine.one(topic, **members)
            engine.call("POST", f"/external-task/{task['id']}/unlock")
            return set(task["variables"])

        everything = {"a", "b", "contractTopic", "contractPriority"}
        assert names() == everything
        assert names(variables=None) == everything
        assert names(variables=[]) == set()
        assert names(variables=["b", "nope", "b"]) == {"b"}

    def test_local_variables_only(self, engine: Engine, topic: str) -> None:
        """localVariables leaves the scope of the process instance out."""
        engine.start(topic, key="contract-chain")

        task = engine.one(topic, localVariables=True)

        assert task["variables"] == {"stage": {"value": "first", "type": "String", "valueInfo": {}}}

    def test_extension_properties_only_when_asked(self, engine: Engine, topic: str) -> None:
        """Without asking they are an empty object."""
        engine.start(topic)

        assert engine.one(topic)["extensionProperties"] == {}


class TestLongPoll:
    def test_it_ends_empty_at_its_timeout(self, engine: Engine, topic: str) -> None:
        """An idle engine answers `[]`, not an error."""
        answer = engine.call(
            "POST",
            "/external-task/fetchAndLock",
            {
                "workerId": "w",
                "maxTasks": 1,
                "asyncResponseTimeout": 300,
                "topics": [{"topicName": topic, "lockDuration": 1000}],
            },
        )

        assert answer.json() == []
        assert answer.elapsed.total_seconds() >= 0.25

    def test_a_new_task_wakes_it(self, engine: Engine, topic: str) -> None:
        """This is what makes the bridge fast without polling hard."""
        thread, answers = poll_in_background(engine, topic, 20_000)

        instance_id = engine.start(topic)
        thread.join(10)

        assert [task["processInstanceId"] for task in answers[0]] == [instance_id]

    def test_an_unlocked_task_wakes_it(self, engine: Engine, topic: str, task: Json) -> None:
        """A released task goes to whoever waits."""
        thread, answers = poll_in_background(engine, topic, 20_000)

        engine.call("POST", f"/external-task/{task['id']}/unlock")
        thread.join(10)

        assert [(t["id"], t["workerId"]) for t in answers[0]] == [(task["id"], "poller")]

    def test_a_task_that_follows_a_completed_one_wakes_it(self, engine: Engine, topic: str) -> None:
        """Chains of tasks flow without waiting for the next poll."""
        engine.start(topic, key="contract-chain")
        first = engine.one(topic)
        thread, answers = poll_in_background(engine, topic, 20_000)

        engine.done(first, "complete", localVariables={"found": {"value": 1}})
        thread.join(10)

        assert [task["activityId"] for task in answers[0]] == ["second"]

    def test_it_answers_at_once_when_there_is_a_task(self, engine: Engine, topic: str) -> None:
        """The first task ends the poll, so bursts give small batches."""
        engine.start(topic)

        answer = engine.fetch(topic, request={"asyncResponseTimeout": 20_000})

        assert len(answer) == 1

    def test_an_expired_lock_is_seen_only_at_the_polls_own_end(
        self, engine: Engine, topic: str
    ) -> None:
        """Nobody in the engine watches locks; when a poll times out, it looks once more."""
        engine.start(topic)
        task = engine.one(topic, "first", lock_ms=2000)  # the poll must have begun by then
        began = time.monotonic()

        thread, answers = poll_in_background(engine, topic, 3000)
        thread.join(60)

        assert [t["id"] for t in answers[0]] == [task["id"]]
        assert time.monotonic() - began > 2.9
