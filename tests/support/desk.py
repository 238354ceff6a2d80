"""What tests of the operator's commands share: settings, a replica that says what a test says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import requests

from bridge.desk.asking import Replica, ReplicaSilent
from bridge.engine.connection import HttpOptions
from bridge.engine.records import EngineRecords
from bridge.errors import BrokerUnavailable
from bridge.queue_counts import QueueCount
from bridge.settings import BrokerSettings, Settings, load
from bridge.simulated_engine import SimulatedEngine, linear_process

SILENT = "no bridge answers at http://127.0.0.1:9464: Connection refused"


def given(
    tmp_path: Path, topics: str = "[topics.pay]", url: str = "http://127.0.0.1:9"
) -> Settings:
    """Settings with these topics."""
    config = tmp_path / "bridge.toml"
    config.write_text(f"[engine]\nurl = '{url}'\n{topics}\n")
    return load(config, {})


def silent(path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
    """A replica that is not there."""
    raise ReplicaSilent(SILENT)


def replica(*entries: Mapping[str, Any], **status: Any) -> Replica:
    """A replica that holds these tasks and says this of itself."""

    def ask(path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
        if path == "status.json":
            return {"schemaVersion": 1, "problems": {}, "topics": [], **status}
        fits = [e for e in entries if query.get("task") in (None, e["taskId"])]
        return {"tasks": [e for e in fits if query.get("topic") in (None, e.get("topic"))]}

    return Replica(ask)


def held(task_id: str, seconds: float = 60.0, **more: Any) -> dict[str, Any]:
    """One task in a replica's memory: leased, its message in a queue, unless `more` says else."""
    entry = {"taskId": task_id, "topic": "pay", "retries": None, "seconds": seconds}
    return {**entry, "confirmed": True, "leased": True, **more}


class Counts:
    """A broker whose queues hold this; a queue that is not named does not exist."""

    def __init__(self, problem: str | None = None, **queues: QueueCount) -> None:
        self._queues = {name.replace("_", "."): count for name, count in queues.items()}
        self._problem = problem

    def __call__(self, _: BrokerSettings, names: Sequence[str]) -> dict[str, QueueCount | None]:
        if self._problem is not None:
            raise BrokerUnavailable(self._problem)
        return {name: self._queues.get(name) for name in names}


class Desk:
    """A simulated engine with processes of one task, and questions to it."""

    def __init__(self, simulated: SimulatedEngine) -> None:
        self.simulated = simulated
        self.records = EngineRecords(HttpOptions(simulated.url))
        self._deployed: set[str] = set()

    def start(self, topic: str = "pay", *, business_key: str | None = None) -> str:
        """Start an instance of the process `<topic>-process`; the id of its task."""
        key = f"{topic}-process"
        if key not in self._deployed:
            self.simulated.deploy(linear_process(key, topic))
            self._deployed.add(key)
        instance = self.simulated.start_process(key, business_key=business_key)
        (task,) = self.simulated.tasks(processInstanceId=instance)
        return str(task["id"])

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Any request that must succeed; its JSON."""
        answer = requests.request(method, self.simulated.url + path, json=body, timeout=10)
        assert answer.ok, answer.text
        return answer.json() if answer.content else None

    def fetch(self, topic: str = "pay", seconds: float = 60.0, worker: str = "bridge") -> list[str]:
        """Lock every task of the topic; their ids."""
        one = {"topicName": topic, "lockDuration": round(seconds * 1000)}
        body = {"workerId": worker, "maxTasks": 1000, "topics": [one]}
        found = self.call("POST", "/external-task/fetchAndLock", body)
        return [str(task["id"]) for task in found]

    def fail(self, task_id: str, retries: int = 0, pause: float = 0.0, message: str = "no") -> None:
        """Report a failure as the bridge."""
        body = {"workerId": "bridge", "retries": retries, "retryTimeout": round(pause * 1000)}
        self.act(task_id, "failure", **body, errorMessage=message)

    def act(self, task_id: str, verb: str, **body: Any) -> None:
        self.call("POST", f"/external-task/{task_id}/{verb}", {"workerId": "bridge", **body})

    def suspend(self, task_id: str) -> None:
        """Suspend the task's process instance."""
        instance = self.task(task_id)["processInstanceId"]
        self.call("PUT", f"/process-instance/{instance}/suspended", {"suspended": True})

    def task(self, task_id: str) -> dict[str, Any]:
        """The engine's record."""
        found: dict[str, Any] = self.call("GET", f"/external-task/{task_id}")
        return found
