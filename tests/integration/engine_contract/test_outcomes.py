"""What complete, failure, bpmnError, suspension and retries do to task and process."""

import pytest

from tests.integration.engine_contract.client import (
    Engine,
    Json,
    eventually,
    new_topic,
    refused,
    suspend,
)


class TestFailure:
    def test_the_pause_is_a_lock_that_the_worker_keeps(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """The worker id stays, and the expiry becomes now + retryTimeout."""
        engine.done(
            task,
            "failure",
            errorMessage="no answer",
            errorDetails="a\nlong story",
            retries=2,
            retryTimeout=60_000,
        )

        after = engine.task(task)
        assert (after["workerId"], after["retries"]) == ("w", 2)
        assert after["errorMessage"] == "no answer"
        assert engine.fetch(topic) == []
        details = engine.call("GET", f"/external-task/{task['id']}/errorDetails")
        assert details.text == "a\nlong story"
        assert details.headers["Content-Type"].startswith("text/plain")

    def test_the_next_attempt_carries_retries_message_and_details(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """The attempt is known by its retries."""
        details = {"errorMessage": "m", "errorDetails": "d"}
        engine.done(task, "failure", retries=2, retryTimeout=0, **details)

        again = engine.one(topic)

        assert (again["id"], again["retries"]) == (task["id"], 2)
        assert (again["errorMessage"], again["errorDetails"]) == ("m", "d")

    def test_absent_retries_are_0_and_an_incident(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """The trap of primitive defaults: the bridge always sends them."""
        engine.done(task, "failure", errorMessage="e" * 700)

        assert engine.task(task)["retries"] == 0
        (incident,) = engine.get("/incident", processInstanceId=task["processInstanceId"])
        assert incident["incidentType"] == "failedExternalTask"
        assert incident["configuration"] == task["id"]
        assert incident["activityId"] == "work"
        assert incident["incidentMessage"] == "e" * 666
        assert engine.fetch(topic) == []

    def test_absent_retry_timeout_is_no_pause(self, engine: Engine, topic: str, task: Json) -> None:
        """The second trap of primitive defaults."""
        engine.done(task, "failure", retries=1)

        eventually(lambda: engine.fetch(topic))

    def test_the_worker_may_complete_after_its_failure(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """Even without retries left; the incident goes."""
        engine.done(task, "failure", retries=0)
        engine.done(task, "complete")

        assert engine.get("/incident", processInstanceId=task["processInstanceId"]) == []
        assert engine.state_of(task["processInstanceId"]) == "COMPLETED"

    def test_the_worker_may_extend_its_pause(self, engine: Engine, task: Json) -> None:
        """A careless lease would turn a pause of seconds into minutes: ask before extending."""
        engine.done(task, "failure", retries=1, retryTimeout=60_000)
        paused = engine.task(task)["lockExpirationTime"]

        engine.done(task, "extendLock", newDuration=600_000)

        assert engine.task(task)["lockExpirationTime"] > paused

    def test_a_failure_without_details_keeps_the_old_ones(self, engine: Engine, task: Json) -> None:
        """The message is overwritten, the details are not."""
        engine.done(task, "failure", retries=2, errorMessage="one", errorDetails="story")
        engine.done(task, "failure", retries=1)

        assert engine.task(task)["errorMessage"] is None
        assert engine.call("GET", f"/external-task/{task['id']}/errorDetails").text == "story"

    @pytest.mark.parametrize(
        ("members", "name"),
        [({"retries": -1}, "retries"), ({"retries": 1, "retryTimeout": -1}, "retryDuration")],
    )
    def test_negative_numbers_are_a_server_error(
        self, engine: Engine, task: Json, members: Json, name: str
    ) -> None:
        """500 without a retryable code: never repeat it."""
        answer = engine.act(task, "failure", **members)

        message = f"{name} is not greater than or equal to 0"
        refused(answer, 500, "ProcessEngineException", message, 0)


class TestComplete:
    def test_variables_go_to_the_instance_and_local_ones_vanish(
        self, engine: Engine, topic: str
    ) -> None:
        """Unless an output mapping lifts a local one; an existing local name stays local."""
        instance_id = engine.start(topic, key="contract-chain")
        first = engine.one(topic)

        engine.done(
            first,
            "complete",
            variables={"new": {"value": 1}, "stage": {"value": "changed"}},
            localVariables={"found": {"value": 9}, "scratch": {"value": 0}},
        )

        variables = engine.variables_of(instance_id)
        assert variables["new"]["value"] == 1
        assert variables["lifted"]["value"] == 9
        assert not {"stage", "found", "scratch"} & set(variables)
        assert engine.one(topic)["activityId"] == "second"

    def test_a_variable_is_set_where_it_exists(self, engine: Engine, topic: str) -> None:
        """A name of the task's own scope is changed there, not put on the instance."""
        instance_id = engine.start(topic, key="contract-chain")
        first = engine.one(topic)

        engine.done(first, "failure", retries=1, variables={"stage": {"value": "changed"}})
        engine.await_expiry(first)

        assert engine.one(topic)["variables"]["stage"]["value"] == "changed"
        assert "stage" not in engine.variables_of(instance_id)

    def test_a_failing_continuation_rolls_everything_back(self, engine: Engine, topic: str) -> None:
        """500: the task stays locked as before and none of the variables is there."""
        instance_id = engine.start(topic, key="contract-chain")
        first = engine.one(topic)

        answer = engine.act(first, "complete", variables={"new": {"value": 1}})

        message = "Unknown property used in expression: .*found.*"
        refused(answer, 500, "ProcessEngineException", message, 0)
        after = engine.task(first)
        assert after["workerId"] == "w"
        assert after["lockExpirationTime"] == first["lockExpirationTime"]
        assert "new" not in engine.variables_of(instance_id)

    def test_a_transient_variable_is_not_kept(self, engine: Engine, topic: str) -> None:
        """It lives until the next wait state."""
        instance_id = engine.start(topic, key="contract-chain")
        first = engine.one(topic)
        passing = {"value": 1, "type": "Integer", "valueInfo": {"transient": True}}

        engine.done(
            first,
            "complete",
            variables={"passing": passing},
            localVariables={"found": {"value": 1}},
        )

        assert "passing" not in engine.variables_of(instance_id)


class TestBpmnError:
    def test_a_caught_code_takes_the_boundary_event(self, engine: Engine, topic: str) -> None:
        """Code and message land in the variables that the boundary names."""
        instance_id = engine.start(topic)
        task = engine.one(topic)

        engine.done(
            task,
            "bpmnError",
            errorCode="KNOWN_ERROR",
            errorMessage="declined",
            variables={"reason": {"value": 3}},
        )

        assert engine.one(topic)["activityId"] == "repair"
        variables = engine.variables_of(instance_id)
        assert variables["caughtCode"]["value"] == "KNOWN_ERROR"
        assert variables["caughtMessage"]["value"] == "declined"
        assert variables["reason"]["value"] == 3

    def test_an_uncaught_code_ends_the_path_silently(self, engine: Engine, topic: str) -> None:
        """204, and the instance is simply over: users must know."""
        instance_id = engine.start(topic)

        engine.done(engine.one(topic), "bpmnError", errorCode="NOBODY_CATCHES_THIS")

        assert engine.state_of(instance_id) == "COMPLETED"


class TestSuspension:
    @pytest.mark.parametrize("verb", ["complete", "failure", "bpmnError", "extendLock"])
    def test_a_suspended_task_refuses_until_activated(
        self, engine: Engine, task: Json, verb: str
    ) -> None:
        """400, but not for good: the result must wait."""
        suspend(engine, task["processInstanceId"], suspended=True)
        members: Json = {"errorCode": "E", "newDuration": 60_000, "retries": 1}

        answer = engine.act(task, verb, **members)

        message = f"ENGINE-03043 ExternalTask with id '{task['id']}' is suspended."
        refused(answer, 400, "RestException", message, 0)
        assert engine.task(task)["suspended"] is True
        assert engine.state_of(task["processInstanceId"]) == "SUSPENDED"
        suspend(engine, task["processInstanceId"], suspended=False)
        engine.done(task, verb, **members)

    def test_lock_unlock_and_retries_do_not_ask(self, engine: Engine, task: Json) -> None:
        """`lock` is how the bridge renews a suspended task."""
        suspend(engine, task["processInstanceId"], suspended=True)

        engine.done(task, "lock", lockDuration=600_000)
        retries = engine.call("PUT", f"/external-task/{task['id']}/retries", {"retries": 4})
        unlocked = engine.call("POST", f"/external-task/{task['id']}/unlock")

        assert (retries.status_code, unlocked.status_code) == (204, 204)


class TestRetries:
    def test_0_opens_an_incident_and_more_closes_it(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """What `retry` of the bridge does for an operator."""
        path = f"/external-task/{task['id']}/retries"

        def incidents() -> int:
            found = engine.get("/incident/count", processInstanceId=task["processInstanceId"])
            return int(found["count"])

        assert engine.call("PUT", path, {"retries": 0}).status_code == 204
        assert incidents() == 1
        assert engine.call("PUT", path, {"retries": 3}).status_code == 204
        assert incidents() == 0

    def test_refusals(self, engine: Engine, task: Json) -> None:
        """Null and negative are refused, each in its own type."""
        path = f"/external-task/{task['id']}/retries"
        refused(
            engine.call("PUT", path, {}),
            400,
            "InvalidRequestException",
            "The number of retries cannot be null.",
            None,
        )
        refused(
            engine.call("PUT", path, {"retries": -1}),
            400,
            "BadUserRequestException",
            "The number of retries cannot be negative: .*",
            0,
        )
        refused(
            engine.call("PUT", "/external-task/nope/retries", {"retries": 1}),
            404,
            "RestException",
            "External task with id nope does not exist",
            0,
        )

    def test_many_at_once_or_none(self, engine: Engine, topic: str) -> None:
        """By ids, instances or query; one unknown id undoes all."""
        engine.start(topic)
        engine.start(topic)
        one, two = engine.fetch(topic)
        path = "/external-task/retries"

        answer = engine.call("PUT", path, {"retries": 7, "externalTaskIds": [one["id"], "nope"]})
        message = "Cannot find external task with id nope.*"
        refused(answer, 404, "InvalidRequestException", message, None)
        assert engine.task(one)["retries"] is None

        for chosen, retries in (
            ({"externalTaskIds": [one["id"], two["id"]]}, 5),
            ({"externalTaskQuery": {"topicName": topic}}, 6),
            ({"processInstanceIds": [one["processInstanceId"], two["processInstanceId"]]}, 7),
        ):
            assert engine.call("PUT", path, {"retries": retries, **chosen}).status_code == 204
            assert engine.task(one)["retries"] == engine.task(two)["retries"] == retries

        nothing = engine.call("PUT", path, {"retries": 1, "externalTaskIds": []})
        refused(nothing, 400, "InvalidRequestException", "externalTaskIds is empty", None)


class TestHistory:
    def test_the_log_tells_a_success_from_a_cancellation(self, engine: Engine, topic: str) -> None:
        """The only way to tell what a 404 after a lost answer means."""
        completed, cancelled = engine.start(topic), engine.start(topic)
        tasks = {task["processInstanceId"]: task for task in engine.fetch(topic)}
        engine.done(tasks[completed], "failure", retries=2, errorMessage="first try")
        engine.done(tasks[completed], "complete")
        engine.call("DELETE", f"/process-instance/{cancelled}")

        def count(instance_id: str, **kind: str) -> int:
            task_id = tasks[instance_id]["id"]
            path = "/history/external-task-log/count"
            return int(engine.get(path, externalTaskId=task_id, **kind)["count"])

        kinds = ("creationLog", "failureLog", "successLog", "deletionLog")
        assert [count(completed, **{kind: "true"}) for kind in kinds] == [1, 1, 1, 0]
        assert [count(cancelled, **{kind: "true"}) for kind in kinds] == [1, 0, 0, 1]

    def test_a_failure_is_logged_with_the_retries_before_it(
        self, engine: Engine, task: Json
    ) -> None:
        """The row is written before the new number is set."""
        engine.done(task, "failure", retries=2, errorMessage="first try")

        (row,) = engine.get(
            "/history/external-task-log", externalTaskId=task["id"], failureLog="true"
        )

        assert (row["workerId"], row["errorMessage"], row["retries"]) == ("w", "first try", None)
        assert (row["topicName"], row["failureLog"], row["successLog"]) == (
            task["topicName"],
            True,
            False,
        )

    def test_instances_are_counted_by_their_end(self, engine: Engine, topic: str) -> None:
        """What the demo's table is counted from."""
        business_key = new_topic()
        for _ in range(2):
            engine.start(topic, business_key=business_key)
        engine.done(engine.fetch(topic)[0], "complete")

        def count(**filters: str) -> int:
            path = "/history/process-instance/count"
            found = engine.get(path, processInstanceBusinessKey=business_key, **filters)
            return int(found["count"])

        assert (count(), count(finished="true"), count(unfinished="true")) == (2, 1, 1)
