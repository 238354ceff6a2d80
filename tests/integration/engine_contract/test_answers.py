"""Mistakes of the caller, deployment and start, and what every answer carries."""

import pytest
import requests

from tests.integration.engine_contract.client import Engine, Json, refused, unreadable


class TestRefusals:
    """Mistakes of the caller, in the status and words that the bridge classifies."""

    @pytest.mark.parametrize(
        ("changes", "status", "kind", "message", "code"),
        [
            ({"workerId": None}, 500, "NullValueException", "workerId is null", 0),
            (
                {"maxTasks": -1},
                500,
                "ProcessEngineException",
                "maxResults is not greater than or equal to 0",
                0,
            ),
            (
                {"topics": [{"lockDuration": 1}]},
                500,
                "NullValueException",
                "topicName is null",
                0,
            ),
            (
                {"topics": [{"topicName": "a"}]},
                500,
                "ProcessEngineException",
                "lockTime is not greater than 0",
                0,
            ),
            (
                {"asyncResponseTimeout": 1_800_001},
                400,
                "InvalidRequestException",
                "The asynchronous response timeout cannot be set to a value greater than "
                "1800000 milliseconds",
                None,
            ),
            (
                {"sorting": [{"sortBy": "id", "sortOrder": "asc"}]},
                400,
                "InvalidRequestException",
                "Cannot set query sortBy parameter to value id",
                None,
            ),
            (
                {"sorting": [{"sortBy": "createTime", "sortOrder": "ASC"}]},
                400,
                "InvalidRequestException",
                "Cannot set query sortOrder parameter to value ASC",
                None,
            ),
            (
                {"sorting": [{"sortBy": "createTime"}]},
                400,
                "NotValidException",
                "Invalid query: call asc.*",
                0,
            ),
        ],
    )
    def test_of_fetch_and_lock(
        self,
        engine: Engine,
        *,
        changes: Json,
        status: int,
        kind: str,
        message: str,
        code: int | None,
    ) -> None:
        """Several of the caller's mistakes are a 500."""
        body = {
            "workerId": "w",
            "maxTasks": 1,
            "topics": [{"topicName": "a", "lockDuration": 1}],
        }

        answer = engine.call("POST", "/external-task/fetchAndLock", body | changes)

        refused(answer, status, kind, message, code)

    @pytest.mark.parametrize(
        ("verb", "members", "name"),
        [
            ("complete", {}, "workerId"),
            ("failure", {}, "workerId"),
            ("bpmnError", {"errorCode": "E"}, "workerId"),
            ("extendLock", {"newDuration": 1}, "workerId"),
            ("lock", {"lockDuration": 1}, "workerId"),
            ("bpmnError", {"workerId": "w"}, "errorCode"),
        ],
    )
    def test_a_missing_member_is_a_server_error(
        self, engine: Engine, task: Json, verb: str, members: Json, name: str
    ) -> None:
        """Checked before the task is looked for."""
        answer = engine.call("POST", f"/external-task/{task['id']}/{verb}", members)

        refused(answer, 500, "NullValueException", f"{name} is null", 0)

    @pytest.mark.parametrize("verb", ["complete", "failure", "bpmnError", "extendLock", "lock"])
    def test_bodies_that_are_no_json_object(self, engine: Engine, task: Json, verb: str) -> None:
        """Broken JSON 400, a list 400, null 500, another content type 415."""
        url = f"{engine.url}/external-task/{task['id']}/{verb}"

        def send(content: bytes, kind: str = "application/json") -> requests.Response:
            headers = {"Content-Type": kind}
            return engine.session.post(url, data=content, headers=headers, timeout=30)

        unreadable(engine, send(b'{"workerId":'))
        unreadable(engine, send(b"[]"))
        refused(send(b"null"), 500, "NullPointerException", ".*", None)
        message = "HTTP 415 Unsupported Media Type"
        refused(send(b"{}", "text/plain"), 415, "NotSupportedException", message, None)

    @pytest.mark.parametrize("changes", [{"maxTasks": "many"}, {"topics": {}}, {"topics": "a"}])
    def test_a_wrong_json_type_is_a_bad_request(self, engine: Engine, changes: Json) -> None:
        """A mistake of the caller's, never worth a retry."""
        body = {"workerId": "w", "maxTasks": 1, "topics": []}

        unreadable(engine, engine.call("POST", "/external-task/fetchAndLock", body | changes))

    def test_unknown_members_are_ignored(self, engine: Engine, topic: str) -> None:
        """So a misspelt name silently means its default."""
        engine.start(topic)

        assert len(engine.fetch(topic, lockDuratoin=1, request={"maxtasks": 0})) == 1

    def test_wrong_paths_and_methods(self, engine: Engine) -> None:
        """404 and 405 with the REST layer's types: the URL is wrong, not the task."""
        message = "HTTP 404 Not Found"
        refused(engine.call("GET", "/nope"), 404, "NotFoundException", message, None)
        wrong = engine.call("GET", "/external-task/fetchAndLock")
        refused(wrong, 405, "NotAllowedException", "HTTP 405 Method Not Allowed", None)
        outside = engine.session.get(engine.url.replace("/engine-rest", "/rest"), timeout=30)
        assert outside.status_code == 404
        assert outside.headers["Content-Type"].startswith("text/html")


class TestDeploymentAndStart:
    def test_a_definition_gives_its_xml_back(self, engine: Engine) -> None:
        """The bridge reads retry policies from it."""
        definition = engine.get("/process-definition/key/contract-task")

        found = engine.get(f"/process-definition/{definition['id']}/xml")

        assert found["id"] == definition["id"]
        assert 'camunda:versionTag="release-1.2"' in found["bpmn20Xml"]

    def test_an_unknown_process_is_not_found(self, engine: Engine) -> None:
        """For a key and for a tenant's key."""
        path = "/process-definition/key"
        for part, of in (("nope", "no tenant-id"), ("nope/tenant-id/t", "tenant-id: t")):
            answer = engine.call("POST", f"{path}/{part}/start", {})
            message = f"No matching process definition with key: nope and {of}"
            refused(answer, 404, "RestException", message, None)

    def test_a_bad_variable_starts_nothing(self, engine: Engine) -> None:
        """The refusal names the definition."""
        body = {"variables": {"n": {"value": "x", "type": "Integer"}}}

        answer = engine.call("POST", "/process-definition/key/contract-task/start", body)

        message = "Cannot instantiate process definition .*: Cannot convert value 'x' .*"
        refused(answer, 400, "InvalidRequestException", message, None)

    def test_a_file_that_is_no_bpmn_is_refused(self, engine: Engine) -> None:
        """Nothing of it is deployed."""
        files = {"broken.bpmn": ("broken.bpmn", b"<definitions")}
        answer = engine.session.post(f"{engine.url}/deployment/create", files=files, timeout=30)

        message = "ENGINE-09003 Could not parse 'broken.bpmn'. .*"
        refused(answer, 500, "ProcessEngineException", message, 0)

    def test_an_instance_is_shown_while_it_runs(self, engine: Engine, topic: str) -> None:
        """And is a 404 afterwards."""
        instance_id = engine.start(topic, business_key="order 7")

        shown = engine.get(f"/process-instance/{instance_id}")
        assert (shown["businessKey"], shown["ended"], shown["suspended"]) == (
            "order 7",
            False,
            False,
        )

        engine.done(engine.one(topic), "complete")
        answer = engine.call("GET", f"/process-instance/{instance_id}")
        message = f"Process instance with id {instance_id} does not exist"
        refused(answer, 404, "InvalidRequestException", message, None)


class TestAnswers:
    def test_every_answer_carries_the_engines_time(self, engine: Engine, task: Json) -> None:
        """The bridge's only clock for lock expiries: also on 204 and on errors."""
        answers = [
            engine.call("GET", "/version"),
            engine.act(task, "extendLock", newDuration=60_000),
            engine.act(task, "extendLock", "other", newDuration=60_000),
        ]

        assert [answer.status_code for answer in answers] == [200, 204, 400]
        assert all(answer.headers["Date"].endswith(" GMT") for answer in answers)

    def test_a_refusal_closes_the_connection_but_a_404_does_not(
        self, engine: Engine, task: Json
    ) -> None:
        """Tomcat's rule for 400 and 500: the next call opens a new connection."""
        other = engine.act(task, "extendLock", "other", newDuration=60_000)
        unknown = engine.call("GET", "/external-task/nope")

        assert (other.status_code, other.headers.get("Connection")) == (400, "close")
        assert (unknown.status_code, unknown.headers.get("Connection")) != (404, "close")

    def test_version_and_engines(self, engine: Engine) -> None:
        """How `check` says which engine it talks to."""
        assert engine.get("/version")["version"][0].isdigit()
        assert engine.get("/engine") == [{"name": "default"}]

    def test_a_named_engine_has_the_same_paths(self, engine: Engine, task: Json) -> None:
        """Unknown names are a 400."""
        found = engine.get("/engine/default/external-task", externalTaskId=task["id"])
        assert [entry["id"] for entry in found] == [task["id"]]

        answer = engine.call("GET", "/engine/nope/external-task")
        message = "No process engine available"
        refused(answer, 400, "InvalidRequestException", message, None)
