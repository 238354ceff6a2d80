"""Tasks of one topic under a fault: started, counted, and judged by the engine's history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tests.support.bridge import Bridge
from tests.support.engine import EngineRest, unique
from tests.support.waiting import eventually

LIMIT = 60.0


class Load:
    """The instances of one process with one task of a topic."""

    def __init__(self, engine: EngineRest, short: str, topic: str | None = None) -> None:
        self.engine = engine
        self.topic = topic or unique(short)
        self.key = engine.deploy_topics(self.topic)
        self.started = 0

    def start(self, count: int, variables: Mapping[str, Any] | None = None) -> None:
        for _ in range(count):
            self.engine.start(self.key, variables)
        self.started += count

    @property
    def finished(self) -> int:
        return self.engine.finished(self.key)

    def failures(self) -> int:
        """How often a failure of these tasks was ever reported to the engine."""
        path, query = "/history/external-task-log/count", {"processDefinitionKey": self.key}
        return int(self.engine.call("GET", path, failureLog="true", **query)["count"])

    def ends(self, limit: float = LIMIT) -> None:
        """Wait until all have ended; none of them may have cost a retry."""
        eventually(lambda: self.finished == self.started, limit, what=f"{self.topic} ends")
        self.cost_nothing()

    def cost_nothing(self) -> None:
        """No business retry was spent, now or ever."""
        tasks = self.engine.tasks(processDefinitionKey=self.key)
        assert [task["retries"] for task in tasks] == [None] * len(tasks)
        assert self.engine.incidents(self.key) == []
        assert self.failures() == 0


@contextmanager
def told_by(bridge: Bridge) -> Iterator[None]:
    """A failure inside has the bridge's own words: its log without the tasks' single steps."""
    try:
        yield
    except AssertionError as error:
        said = [line for line in bridge.log() if line["level"] != "debug"]
        error.add_note("\n".join(map(str, said[-30:])))
        raise
