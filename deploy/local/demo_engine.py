"""What the demo asks of the engine's REST API: deploy, start, read the history.

Counts nothing itself and knows no task: the bridge alone fetches and answers those.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests

from deploy.local.demo_cases import TOPICS, WRITTEN, Ending
from deploy.local.demo_screen import DemoError

_SECONDS = 20
_SEE_LOG = "the engine's log says more; the demo wants Camunda 7, Operaton or CIB seven"


class DemoEngineError(DemoError):
    """The engine cannot be reached, or answered something else than wanted."""


@dataclass(frozen=True)
class Deployment:
    """One deployment: its id and the definition id of each process key."""

    id: str
    definitions: Mapping[str, str]


class DemoEngine:
    """An engine's REST API.  Each method raises DemoEngineError; one thread only."""

    def __init__(self, url: str, session: requests.Session) -> None:
        self._url = url.rstrip("/")
        self._session = session

    def version(self) -> str:
        """The version that the engine gives of itself."""
        return str(self._get("/version")["version"])

    def deploy(self, files: Iterable[Path], name: str) -> Deployment:
        """Deploy the BPMN files as one new deployment, so that its history stands apart."""
        form = {"deployment-name": name, "deployment-source": "external-task-bridge demo"}
        parts = {path.name: (path.name, path.read_bytes()) for path in sorted(files)}
        answer = self._call("POST", "/deployment/create", data=form, files=parts)
        found = answer.get("deployedProcessDefinitions") or {}
        definitions = {one["key"]: one["id"] for one in found.values()}
        if missing := TOPICS.keys() - definitions.keys():
            raise DemoEngineError(f"the engine deployed no {', '.join(sorted(missing))}", _SEE_LOG)
        return Deployment(answer["id"], definitions)

    def undeploy(self, deployment: Deployment) -> None:
        """Remove the deployment with its instances and their history."""
        self._call("DELETE", f"/deployment/{deployment.id}?cascade=true")

    def start(self, definition: str, business_key: str, variables: Mapping[str, str | int]) -> str:
        """Start one instance and return its id."""
        body = {
            "businessKey": business_key,
            "variables": {
                name: {"value": value, "type": "String" if isinstance(value, str) else "Integer"}
                for name, value in variables.items()
            },
        }
        answer = self._call("POST", f"/process-definition/{definition}/start", json=body)
        return str(answer["id"])

    def count_settled(self, deployment: Deployment) -> int:
        """How many instances have ended or stand still with an incident."""
        total = 0
        for definition in deployment.definitions.values():
            only = {"processDefinitionId": definition}
            finished = {**only, "finished": "true"}
            total += int(self._get("/history/process-instance/count", finished)["count"])
            total += int(self._get("/incident/count", only)["count"])
        return total

    def stories(self, deployment: Deployment) -> dict[str, Ending]:
        """What the history tells of each instance of the deployment, by instance id."""
        told: dict[str, Ending] = {}
        for definition in deployment.definitions.values():
            told |= self._stories(definition)
        return told

    def _stories(self, definition: str) -> dict[str, Ending]:
        only = {"processDefinitionId": definition}
        instances = self._get("/history/process-instance", only)
        passed = self._get("/history/activity-instance", {**only, "finished": "true"})
        failed = self._get("/history/external-task-log", {**only, "failureLog": "true"})
        incidents = self._get("/incident", only)
        variables = self._get("/history/variable-instance", only)
        ends = _by_instance(passed, "activityId", "EndEvent")
        boundaries = _by_instance(passed, "activityId", "boundaryError")
        failures = Counter(row["processInstanceId"] for row in failed)
        stuck = {row["processInstanceId"] for row in incidents}
        wrote: dict[str, set[str]] = defaultdict(set)
        for row in variables:
            wrote[row["processInstanceId"]].add(row["name"])
        return {
            row["id"]: Ending(
                end=ends.get(row["id"]) if row["state"] == "COMPLETED" else None,
                boundary=boundaries.get(row["id"]),
                failures=failures[row["id"]],
                incident=row["id"] in stuck,
                variables=WRITTEN & wrote[row["id"]],
            )
            for row in instances
        }

    def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return self._call("GET", path, params=query)

    def _call(self, method: str, path: str, **options: Any) -> Any:
        call = f"{method} {path}"
        try:
            answer = self._session.request(method, self._url + path, timeout=_SECONDS, **options)
        except requests.RequestException as error:
            raise DemoEngineError(f"{call}: {error}", "see whether the engine runs") from error
        if answer.status_code in {401, 403}:
            cure = "name who may: ENGINE_URL=http://user:password@host:8080/engine-rest"
            raise DemoEngineError(f"{call}: the engine answers {answer.status_code}", cure)
        if not answer.ok:
            raise DemoEngineError(f"{call}: {answer.status_code} {answer.text[:300]}", _SEE_LOG)
        return answer.json() if answer.content else {}


def _by_instance(rows: Sequence[Mapping[str, Any]], key: str, kind: str) -> dict[str, str]:
    """The last value of `key` for each instance, among the activities of this kind."""
    return {
        row["processInstanceId"]: row[key] for row in rows if row["activityType"].endswith(kind)
    }
