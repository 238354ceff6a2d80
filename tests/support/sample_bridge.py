"""A bridge that a test makes up, behind the real status server with the real page."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Self

from prometheus_client import CollectorRegistry

from bridge.status import NotAnswered, StatusServer
from tests.support.snapshots import Json, snapshot

LOOK_SECONDS = 2
UNKNOWN_KEY = "neither a task nor a process instance of this id or business key is known"


class SampleBridge:
    """Serves what `status`, `stories` (by key) and `tasks` (by topic) say, until the block ends.

    Its clock goes two seconds on with each look at the status, and its counts by what `grows` says
    of a topic: rates are the same however long a test takes.  `broken` is answered instead.
    """

    def __init__(self, status: Json | None = None) -> None:
        self.status = status or snapshot()
        self.stories: dict[str, Json] = {}
        self.tasks: dict[str, list[Json]] = {}
        self.grows: Mapping[str, Mapping[str, int]] = {}
        self.broken: str | None = None
        self.looks = 0
        documents = {
            "/status.json": lambda _: self._look(),
            "/why.json": lambda query: self._story(query["key"]),
            "/tasks.json": lambda query: self._tasks(query["topic"]),
        }
        self._server = StatusServer("127.0.0.1", 0, CollectorRegistry(), dict, documents)
        self.url = f"http://127.0.0.1:{self._server.port}/"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.stop()

    def _look(self) -> Json:
        """The status as it is, and then a step on."""
        self._refuse()
        made = copy.deepcopy(self.status)
        now = datetime.fromisoformat(made["now"]) + timedelta(seconds=LOOK_SECONDS)
        self.status["now"] = f"{now:%Y-%m-%dT%H:%M:%SZ}"
        self.status["uptimeSeconds"] += LOOK_SECONDS
        for topic in self.status["topics"]:
            for event, by in self.grows.get(topic["name"], {}).items():
                topic["events"] = {**topic["events"], event: topic["events"].get(event, 0) + by}
        self.looks += 1
        return made

    def _story(self, key: str) -> Json:
        self._refuse()
        unknown = {
            "schemaVersion": 1,
            "key": key,
            "found": "none",
            "note": UNKNOWN_KEY,
            "tasks": [],
        }
        return self.stories.get(key, unknown)

    def _tasks(self, topic: str) -> Json:
        self._refuse()
        tasks = self.tasks.get(topic, [])
        return {"schemaVersion": 1, "total": len(tasks), "tasks": tasks}

    def _refuse(self) -> None:
        if self.broken is not None:
            raise NotAnswered(503, self.broken)
