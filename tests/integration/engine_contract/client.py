"""A thin hand on an engine's REST API for the contract suite.  Asserts nothing about lock rules."""

import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests

PROCESSES = Path(__file__).parent.parent / "processes" / "contract.bpmn"
KINDS = ("simulated", "camunda", "operaton")
TENANT = "contract-tenant"
ID = "[0-9a-f-]{36}"  # an id in a message
Json = dict[str, Any]


def real_engine_url(kind: str) -> str | None:
    """Where a running engine of this kind answers, if one is given; else one is started."""
    return os.environ.get(f"CONTRACT_{kind.upper()}_URL")


def eventually(holds: Callable[[], object], *, limit_s: float = 10.0) -> None:
    """Wait until `holds` is true; fail after the limit."""
    end = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < end, f"not within {limit_s} s"
        time.sleep(0.01)


class Engine:
    """One engine under test; remembers what it started, so that a test can leave nothing."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url
        self.session = requests.Session()
        self._started: list[str] = []

    def call(
        self, method: str, path: str, body: Any = None, **parameters: Any
    ) -> requests.Response:
        """Any request; `body` is sent as JSON, `parameters` in the query string."""
        return self.session.request(
            method, self.url + path, json=body, params=parameters, timeout=30
        )

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON of a GET that must succeed."""
        return _ok(self.call("GET", path, **parameters)).json()

    def post(self, path: str, body: Any, **parameters: Any) -> Any:
        """The JSON of a POST that must succeed."""
        return _ok(self.call("POST", path, body, **parameters)).json()

    def deploy(self, tenant_id: str | None = None) -> None:
        """Deploy the contract's processes, unless they are there already."""
        data = {"deployment-name": "contract", "enable-duplicate-filtering": "true"}
        if tenant_id is not None:
            data["tenant-id"] = tenant_id
        files = {PROCESSES.name: (PROCESSES.name, PROCESSES.read_bytes())}
        _ok(self.session.post(f"{self.url}/deployment/create", data=data, files=files, timeout=60))

    def deploy_xml(self, xml: str, tenant_id: str | None = None) -> None:
        """Deploy one process of a test's own."""
        data = {"deployment-name": "contract", **({"tenant-id": tenant_id} if tenant_id else {})}
        files = {"own.bpmn": ("own.bpmn", xml.encode())}
        _ok(self.session.post(f"{self.url}/deployment/create", data=data, files=files, timeout=60))

    def start(
        self,
        topic: str,
        variables: Mapping[str, Json] | None = None,
        *,
        key: str = "contract-task",
        priority: int = 0,
        business_key: str | None = None,
        tenant_id: str | None = None,
    ) -> str:
        """Start an instance whose tasks have this topic; returns the instance's id."""
        given = {"contractTopic": {"value": topic}, "contractPriority": {"value": priority}}
        tenant = f"/tenant-id/{tenant_id}" if tenant_id else ""
        body = {"variables": given | dict(variables or {}), "businessKey": business_key}
        started = self.post(f"/process-definition/key/{key}{tenant}/start", body)
        self._started.append(started["id"])
        return str(started["id"])

    def fetch(
        self,
        topic: str,
        worker: str = "w",
        lock_ms: int = 60_000,
        *,
        request: Json | None = None,
        **members: Any,
    ) -> list[Json]:
        """fetchAndLock of one topic: `members` go into the topic, `request` beside it."""
        body = {
            "workerId": worker,
            "maxTasks": 10,
            "topics": [{"topicName": topic, "lockDuration": lock_ms, **members}],
        }
        found: list[Json] = self.post("/external-task/fetchAndLock", body | (request or {}))
        return found

    def one(self, topic: str, worker: str = "w", lock_ms: int = 60_000, **members: Any) -> Json:
        """The one task that fetchAndLock gives for this topic."""
        found = self.fetch(topic, worker, lock_ms, **members)
        assert len(found) == 1, found
        return found[0]

    def act(self, task: Json, verb: str, worker: str = "w", **members: Any) -> requests.Response:
        """POST a verb of a task as this worker."""
        path = f"/external-task/{task['id']}/{verb}"
        return self.call("POST", path, {"workerId": worker, **members})

    def done(self, task: Json, verb: str, worker: str = "w", **members: Any) -> None:
        """`act`, which must be accepted."""
        assert self.act(task, verb, worker, **members).status_code == 204

    def task(self, task: Json) -> Json:
        """The task as the engine shows it now."""
        found: Json = self.get(f"/external-task/{task['id']}")
        return found

    def count(self, **filters: Any) -> int:
        """POST /external-task/count."""
        return int(self.post("/external-task/count", filters)["count"])

    def await_expiry(self, task: Json) -> None:
        """Wait until the engine itself counts the task's lock as expired."""
        eventually(lambda: self.count(externalTaskId=task["id"], notLocked=True))

    def variables_of(self, instance_id: str) -> dict[str, Json]:
        """The variables of a running process instance."""
        path = f"/process-instance/{instance_id}/variables"
        found: dict[str, Json] = self.get(path, deserializeValues="false")
        return found

    def state_of(self, instance_id: str) -> str:
        """ACTIVE, SUSPENDED, COMPLETED or EXTERNALLY_TERMINATED, from the history."""
        return str(self.get(f"/history/process-instance/{instance_id}")["state"])

    def clean(self) -> None:
        """Delete what the test started and is still running."""
        for instance_id in self._started:
            path = f"/process-instance/{instance_id}"
            self.call("DELETE", path, skipIoMappings="true")  # a mapping may need a lost variable
        self._started.clear()

    def close(self) -> None:
        """Close the connections."""
        self.session.close()


def refused(
    answer: requests.Response, status: int, kind: str, message: str, code: int | None
) -> None:
    """Assert an error answer: `message` is a regular expression that must match all of it."""
    body = answer.json()
    assert (answer.status_code, body["type"], body["code"]) == (status, kind, code), body
    assert re.fullmatch(message, body["message"], re.DOTALL), body["message"]


def unreadable(engine: Engine, answer: requests.Response) -> None:
    """Assert the refusal of a body that is not the JSON it should be.

    Which of two exception mappers a real engine chooses differs from start to start: its own
    empty message, or the JSON parser's text, which is no JSON.  Only the status is certain.
    """
    if engine.kind != "simulated" and answer.headers["Content-Type"].startswith("text/plain"):
        assert answer.status_code == 400
    else:
        refused(answer, 400, "InvalidRequestException", "", None)


def suspend(engine: Engine, instance_id: str, *, suspended: bool) -> None:
    """Suspend or activate a process instance."""
    path = f"/process-instance/{instance_id}/suspended"
    assert engine.call("PUT", path, {"suspended": suspended}).status_code == 204


def new_topic() -> str:
    """A topic that no other test uses."""
    return f"topic-{uuid.uuid4()}"


def _ok(answer: requests.Response) -> requests.Response:
    assert answer.status_code in {200, 204}, answer.text
    return answer
