"""fetchAndLock: which tasks a request gets, and the long polls that wait for some."""

import heapq
import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from time import monotonic
from typing import Any

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.errors import (
    RestError,
    engine_failure,
    invalid_request,
    not_valid,
    null_pointer,
    null_value,
)
from bridge.simulated_engine.locking import locked_json
from bridge.simulated_engine.state import Instance, Task
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.values import Variable, untyped

_MAX_POLL_MS = 1_800_000
_PASS_MS = 30_000  # the engine looks again for every waiting poll at least this often


@dataclass(frozen=True)
class TopicRequest:
    """One entry of `topics`."""

    name: str
    lock_ms: int
    variables: tuple[str, ...] | None
    local: bool
    extensions: bool
    filters: Body

    @classmethod
    def read(cls, body: Body) -> "TopicRequest":
        """Check as the engine does: a lack or a non-positive duration is a 500."""
        name, lock_ms = body.text("topicName"), body.whole("lockDuration")
        if name is None:
            raise null_value("topicName")
        if lock_ms <= 0:
            raise engine_failure("lockTime is not greater than 0")
        return cls(
            name,
            lock_ms,
            body.texts("variables"),
            body.flag("localVariables"),
            body.flag("includeExtensionProperties"),
            body,
        )

    def wants(self, task: Task, instance: Instance) -> bool:
        """Whether the task passes this topic's filters (processVariables are joined by OR)."""
        body, definition = self.filters, task.definition
        pairs = (
            ("businessKey", instance.business_key),
            ("processDefinitionId", definition.id),
            ("processDefinitionKey", definition.key),
        )
        if any(body.text(name) not in {None, value} for name, value in pairs):
            return False
        lists = (
            ("processDefinitionIdIn", definition.id),
            ("processDefinitionKeyIn", definition.key),
        )
        if any(value not in (body.texts(name) or (value,)) for name, value in lists):
            return False
        tag, tenants = body.text("processDefinitionVersionTag"), body.texts("tenantIdIn")
        if tag is not None and not like(definition.process.version_tag, tag):
            return False
        if tenants:
            if task.tenant_id not in tenants:
                return False
        elif body.flag("withoutTenantId") and task.tenant_id is not None:
            return False
        wanted = body.mapping("processVariables") or {}
        return not wanted or any(_equals(instance, n, v) for n, v in wanted.items())

    def visible(self, task: Task, instance: Instance) -> dict[str, Variable]:
        """The variables to hand out: all visible ones, only local ones, or only those named."""
        local = instance.local.get(task.execution_id, {})
        found = dict(local) if self.local else {**instance.variables, **local}
        if self.variables is None:
            return found
        return {name: found[name] for name in self.variables if name in found}


@dataclass(frozen=True)
class FetchRequest:
    """A fetchAndLock request, checked."""

    worker_id: str
    max_tasks: int
    topics: Mapping[str, TopicRequest]
    use_priority: bool
    create_time_order: str | None
    poll_ms: int | None

    @classmethod
    def read(cls, body: Body) -> "FetchRequest":
        """Check as the engine does; of two entries with one topic name the last counts."""
        poll_ms, order = body.optional_whole("asyncResponseTimeout"), _sorting(body)
        if poll_ms is not None and poll_ms > _MAX_POLL_MS:
            raise invalid_request(
                "The asynchronous response timeout cannot be set to a value greater than "
                f"{_MAX_POLL_MS} milliseconds"
            )
        worker_id, max_tasks = body.required("workerId"), body.whole("maxTasks")
        if max_tasks < 0:
            raise engine_failure("maxResults is not greater than or equal to 0")
        topics = [TopicRequest.read(entry) for entry in body.bodies("topics")]
        return cls(
            worker_id,
            max_tasks,
            {topic.name: topic for topic in topics},
            body.flag("usePriority"),
            order,
            poll_ms,
        )


@dataclass
class _Poll:
    request: FetchRequest
    done: threading.Event = field(default_factory=threading.Event)
    found: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False


class Fetcher:
    """Answers fetchAndLock; waiting polls are served in the order in which they came."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._polls: list[_Poll] = []
        self._last_pass_ms = store.clock.now_ms()
        store.clock.listen(self._clock_moved)

    def fetch_and_lock(self, body: Body) -> list[dict[str, Any]]:
        """Lock and return tasks; with `asyncResponseTimeout` wait for some, else `[]` at once."""
        request = FetchRequest.read(body)
        with self._store.lock:
            found = self._take(request)
            if found or request.poll_ms is None:
                return found
            poll = _Poll(request)
            self._polls.append(poll)
            self.serve()  # a newly queued poll makes the engine look again for all
        return self._wait(poll, monotonic() + request.poll_ms / 1000)

    @property
    def waiting(self) -> int:
        """How many long polls wait for a task."""
        return len(self._polls)

    def serve(self) -> None:
        """Try every waiting poll once: called when a task was created or unlocked."""
        with self._store.lock:
            self._last_pass_ms = self._store.clock.now_ms()
            for poll in list(self._polls):
                poll.found = self._take(poll.request)
                if poll.found:
                    self._polls.remove(poll)
                    poll.done.set()

    def close(self) -> None:
        """End every waiting poll as an engine that shuts down does."""
        with self._store.lock:
            polls, self._polls = self._polls, []
        for poll in polls:
            poll.closed = True
            poll.done.set()

    def _wait(self, poll: _Poll, until: float) -> list[dict[str, Any]]:
        while (left := until - monotonic()) > 0:
            if poll.done.wait(min(left, _PASS_MS / 1000)):
                break
            self._clock_moved()
        with self._store.lock:
            self.serve()  # a poll's time-out makes the engine look again for all, this one too
            if poll in self._polls:
                self._polls.remove(poll)
        if poll.closed:
            raise RestError(
                500,
                "RestException",
                "Request rejected due to shutdown of application server.",
            )
        return poll.found

    def _clock_moved(self) -> None:
        with self._store.lock:
            if abs(self._store.clock.now_ms() - self._last_pass_ms) >= _PASS_MS:
                self.serve()

    def _take(self, request: FetchRequest) -> list[dict[str, Any]]:
        now_ms, taken = self._store.clock.now_ms(), []
        for task in list(islice(self._ordered(request, now_ms), request.max_tasks)):
            topic, instance = request.topics[task.topic], self._store.instances[task.instance_id]
            locked = replace(
                task, worker_id=request.worker_id, lock_expires_ms=now_ms + topic.lock_ms
            )
            self._store.tasks[task.id] = locked
            variables = topic.visible(task, instance)
            taken.append(locked_json(locked, variables, extensions=topic.extensions))
        return taken

    def _ordered(self, request: FetchRequest, now_ms: int) -> Iterator[Task]:
        per_topic = [self._fetchable(topic, now_ms) for topic in request.topics.values()]
        oldest_first = heapq.merge(*per_topic, key=lambda task: task.number)
        if request.create_time_order is None and not request.use_priority:
            return oldest_first
        tasks = list(oldest_first)
        if request.create_time_order is not None:
            newest = request.create_time_order == "desc"
            tasks.sort(key=lambda task: task.create_ms, reverse=newest)
        if request.use_priority:
            tasks.sort(key=lambda task: -task.priority)
        return iter(tasks)

    def _fetchable(self, topic: TopicRequest, now_ms: int) -> Iterator[Task]:
        for task in self._store.tasks_of(topic.name):
            instance = self._store.instances[task.instance_id]
            if (
                not task.locked(now_ms)
                and not instance.suspended
                and task.retries != 0
                and topic.wants(task, instance)
            ):
                yield task


def like(text: str | None, pattern: str) -> bool:
    """SQL LIKE: `%` is any text, `_` any character; nothing is like NULL."""
    parts = {"%": ".*", "_": "."}
    expression = "".join(parts.get(char, re.escape(char)) for char in pattern)
    return text is not None and re.fullmatch(expression, text, re.DOTALL) is not None


def _equals(instance: Instance, name: str, wanted: Any) -> bool:
    found, value = instance.variables.get(name), untyped(wanted)
    return found is not None and (found.type, found.value) == (value.type, value.value)


def _sorting(body: Body) -> str | None:
    order = None
    for entry in body.bodies("sorting"):
        sort_by, sort_order = entry.text("sortBy"), entry.text("sortOrder")
        if sort_by not in {None, "createTime"}:
            raise invalid_request(f"Cannot set query sortBy parameter to value {sort_by}")
        if sort_order not in {None, "asc", "desc"}:
            raise invalid_request(f"Cannot set query sortOrder parameter to value {sort_order}")
        if sort_by is None:
            raise null_pointer()
        if sort_order is None:
            raise not_valid(
                "Invalid query: call asc() or desc() after using orderByXX(): direction is null"
            )
        order = sort_order
    return order
