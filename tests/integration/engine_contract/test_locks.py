"""Who may do what with a task that is locked, expired, unlocked or gone."""

import pytest
import requests

from tests.integration.engine_contract.client import ID, Engine, Json, refused


class TestOwnership:
    """What a worker may do with a task that it holds, held, or never held."""

    @pytest.mark.parametrize(
        ("verb", "members", "message"),
        [
            ("complete", {}, f"External Task {ID} cannot be completed by worker 'other'."),
            (
                "failure",
                {"retries": 1},
                f"Failure of External Task {ID} cannot be reported by worker 'other'.",
            ),
            (
                "bpmnError",
                {"errorCode": "E"},
                f"Bpmn error of External Task {ID} cannot be reported by worker 'other'.",
            ),
            (
                "extendLock",
                {"newDuration": 1000},
                f"The lock of the External Task {ID} cannot be extended by worker 'other'+.",
            ),
            (
                "lock",
                {"lockDuration": 1000},
                f"External Task {ID} cannot be locked by worker 'other'.",
            ),
        ],
    )
    def test_anothers_task_is_refused_and_unchanged(
        self, engine: Engine, task: Json, verb: str, members: Json, message: str
    ) -> None:
        """The worker id is the only fence between replicas of different deployments."""
        before = engine.task(task)

        answer = engine.act(task, verb, "other", **members)

        refused(answer, 400, "RestException", f"{message} It is locked by worker 'w'.", 0)
        assert engine.task(task) == before

    @pytest.mark.parametrize("verb", ["complete", "failure", "bpmnError", "extendLock"])
    def test_an_unlocked_task_belongs_to_nobody(
        self, engine: Engine, task: Json, verb: str
    ) -> None:
        """After an operator's unlock the result must be salvaged by `lock` first."""
        engine.call("POST", f"/external-task/{task['id']}/unlock")

        answer = engine.act(task, verb, errorCode="E", newDuration=1000)

        refused(answer, 400, "RestException", ".* It is locked by worker 'null'.", 0)
        engine.done(task, "lock", lockDuration=1000)
        engine.done(task, verb, errorCode="E", newDuration=1000)

    @pytest.mark.parametrize("verb", ["complete", "failure", "bpmnError"])
    def test_the_old_owner_may_finish_after_expiry(
        self, engine: Engine, topic: str, verb: str
    ) -> None:
        """A late result is still good as long as nobody else fetched the task."""
        engine.start(topic)
        task = engine.one(topic, lock_ms=100)
        engine.await_expiry(task)

        engine.done(task, verb, errorCode="E", retries=1)

    @pytest.mark.parametrize("verb", ["complete", "failure", "bpmnError", "extendLock", "lock"])
    def test_the_old_owner_is_refused_after_a_refetch(
        self, engine: Engine, topic: str, verb: str
    ) -> None:
        """Then the task is someone else's."""
        engine.start(topic)
        task = engine.one(topic, "old", lock_ms=100)
        engine.await_expiry(task)
        engine.one(topic, "new")

        answer = engine.act(
            task, verb, "old", errorCode="E", newDuration=1000, lockDuration=1000, retries=1
        )

        refused(answer, 400, "RestException", ".* It is locked by worker 'new'.", 0)

    def test_two_clients_of_one_worker_id_are_one_worker(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """All replicas of a deployment may finish each other's tasks."""
        with requests.Session() as replica:
            url = f"{engine.url}/external-task/{task['id']}/complete"
            answer = replica.post(url, json={"workerId": "w"}, timeout=30)

        assert answer.status_code == 204

    @pytest.mark.parametrize("verb", ["complete", "failure", "bpmnError", "extendLock", "lock"])
    def test_a_finished_task_is_gone(self, engine: Engine, task: Json, verb: str) -> None:
        """404 is how the bridge learns that a result came twice."""
        engine.done(task, "complete")

        answer = engine.act(
            task, verb, errorCode="E", newDuration=1000, lockDuration=1000, retries=1
        )

        refused(answer, 404, "RestException", f"External task with id {ID} does not exist", 0)

    def test_a_cancelled_instance_takes_its_task_along(self, engine: Engine, topic: str) -> None:
        """A worker's answer to a cancelled instance finds nothing."""
        instance_id = engine.start(topic)
        task = engine.one(topic)
        assert engine.call("DELETE", f"/process-instance/{instance_id}").status_code == 204

        answer = engine.act(task, "complete")

        refused(answer, 404, "RestException", f"External task with id {ID} does not exist", 0)
        assert engine.state_of(instance_id) == "EXTERNALLY_TERMINATED"


class TestExtendLock:
    def test_it_counts_from_now_and_may_shorten(self, engine: Engine, topic: str) -> None:
        """newDuration is not added to the old expiry: 1 ms is a release."""
        engine.start(topic)
        task = engine.one(topic, lock_ms=600_000)

        engine.done(task, "extendLock", newDuration=1)
        engine.await_expiry(task)

        assert engine.one(topic, "other")["id"] == task["id"]

    def test_it_moves_the_expiry_and_keeps_the_owner(self, engine: Engine, task: Json) -> None:
        """The bridge recognises its own lease by worker id and expiry."""
        engine.done(task, "extendLock", newDuration=600_000)

        after = engine.task(task)

        assert after["workerId"] == "w"
        assert after["lockExpirationTime"] > task["lockExpirationTime"]

    def test_an_expired_lock_cannot_be_extended(self, engine: Engine, topic: str) -> None:
        """The task may be about to go to someone else; `lock` is the way back."""
        engine.start(topic)
        task = engine.one(topic, lock_ms=50)
        engine.await_expiry(task)

        answer = engine.act(task, "extendLock", newDuration=1000)

        message = (
            "Cannot extend a lock that expired: lockExpirationTime is not greater than or "
            r"equal to \d{13}"
        )
        refused(answer, 400, "RestException", message, 0)
        engine.done(task, "lock", lockDuration=60_000)
        engine.done(task, "extendLock", newDuration=60_000)

    @pytest.mark.parametrize("members", [{}, {"newDuration": 0}, {"newDuration": -1}])
    def test_the_duration_must_be_positive(self, engine: Engine, task: Json, members: Json) -> None:
        """A missing one is 0."""
        answer = engine.act(task, "extendLock", **members)

        refused(answer, 400, "RestException", "lockTime is not greater than 0", 0)


class TestLock:
    def test_the_owner_may_lock_again_alive_or_expired(self, engine: Engine, topic: str) -> None:
        """It is the renewal that works when extendLock does not."""
        engine.start(topic)
        task = engine.one(topic, lock_ms=60_000)
        engine.done(task, "lock", lockDuration=50)
        engine.await_expiry(task)

        engine.done(task, "lock", lockDuration=600_000)

        assert engine.task(task)["lockExpirationTime"] > task["lockExpirationTime"]

    def test_another_may_lock_an_expired_task(self, engine: Engine, topic: str) -> None:
        """Ownership moves, and the old owner is refused."""
        engine.start(topic)
        task = engine.one(topic, "old", lock_ms=50)
        engine.await_expiry(task)

        engine.done(task, "lock", "new", lockDuration=60_000)

        refused(
            engine.act(task, "complete", "old"),
            400,
            "RestException",
            ".* It is locked by worker 'new'.",
            0,
        )
        engine.done(task, "complete", "new")

    def test_anybody_may_lock_a_task_never_fetched(self, engine: Engine, topic: str) -> None:
        """No fetch is needed to own a task."""
        engine.start(topic)
        (task,) = engine.post("/external-task", {"topicName": topic})

        engine.done(task, "lock", lockDuration=60_000)

        assert engine.fetch(topic) == []

    @pytest.mark.parametrize("members", [{}, {"lockDuration": 0}, {"lockDuration": -1}])
    def test_the_duration_must_be_positive(self, engine: Engine, task: Json, members: Json) -> None:
        """A missing one is 0."""
        answer = engine.act(task, "lock", **members)

        refused(answer, 400, "RestException", "lockDuration is not greater than 0", 0)


class TestUnlock:
    def test_it_asks_nobody_and_clears_owner_and_expiry(
        self, engine: Engine, topic: str, task: Json
    ) -> None:
        """Any caller may unlock, without a body: the bridge avoids it where it can."""
        assert engine.call("POST", f"/external-task/{task['id']}/unlock").status_code == 204

        after = engine.task(task)
        assert (after["workerId"], after["lockExpirationTime"]) == (None, None)
        assert engine.one(topic, "other")["id"] == task["id"]

    def test_an_unknown_task_is_not_found(self, engine: Engine) -> None:
        """As with every verb."""
        answer = engine.call("POST", "/external-task/nope/unlock")

        refused(answer, 404, "RestException", "External task with id nope does not exist", 0)
