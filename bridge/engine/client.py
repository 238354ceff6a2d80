"""The verbs of the external-task REST API, one method each.  Decides nothing about tasks.

Shapes, traps and lock rules: the engine's REST reference ("External Task") and the contract suite
in `tests/integration`.  Durations are seconds here and milliseconds on the wire.
"""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from bridge.engine.clock import EngineClock, lock_window
from bridge.engine.connection import HttpOptions
from bridge.engine.gate import Gate
from bridge.engine.http import Answer, EngineHttp
from bridge.errors import EngineMisconfigured
from bridge.messages import ExternalTask, LockedTask, LockWindow

QUERY_IDS = 300
PAGE = 500

_LOCKED = TypeAdapter(list[LockedTask])
_TASKS = TypeAdapter(list[ExternalTask])
_TASK = TypeAdapter(ExternalTask)
_OBJECT = TypeAdapter(dict[str, Any])

Typed = Mapping[str, Mapping[str, Any]]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Fetched:
    """What one fetchAndLock brought; `began` is the monotonic time at which the call began."""

    tasks: list[LockedTask]
    began: float


@dataclass(frozen=True, slots=True)
class Observed:
    """What the engine says of some tasks; as old as the monotonic time `asked`."""

    tasks: Mapping[str, ExternalTask]
    asked: float


class EngineClient:
    """The engine for one worker id.  Safe to use from every thread; raises EngineError only.

    `gate` is open while the engine answers; whoever has a result that can wait asks it first.
    """

    def __init__(
        self,
        options: HttpOptions,
        worker_id: str,
        *,
        stopping: threading.Event,
        clock: EngineClock | None = None,
        called: Callable[[str, str, float], None] = lambda *_: None,
    ) -> None:
        self.url = options.url
        self.worker_id = worker_id
        self.clock = clock or EngineClock()
        self.gate = Gate(random.Random().uniform)  # noqa: S311 (jitter)
        self._http = EngineHttp(options, self.clock, stopping, self.gate.answered, called)

    # -- fetch ---------------------------------------------------------------------------------

    def fetch_and_lock(
        self,
        topics: Sequence[Mapping[str, Any]],
        max_tasks: int,
        *,
        wait: float = 0.0,
        use_priority: bool = True,
        sorting: Sequence[Mapping[str, str]] = (),
    ) -> Fetched:
        """Lock up to `max_tasks` tasks of the topics; waits up to `wait` seconds for the first.

        Never repeated by itself: an answer that was lost has locked tasks, and a second call
        would lock more of them.
        """
        request: dict[str, Any] = {
            "workerId": self.worker_id,
            "maxTasks": max_tasks,
            "usePriority": use_priority,
            "topics": list(topics),
        }
        if sorting:
            request["sorting"] = list(sorting)
        if wait > 0:
            request["asyncResponseTimeout"] = _ms(wait)
        answer = self._http.once("POST", "/external-task/fetchAndLock", request, wait=wait)
        return Fetched(_parsed(_LOCKED, answer), answer.began)

    # -- finish --------------------------------------------------------------------------------

    def complete(self, task_id: str, variables: Typed, local_variables: Typed) -> None:
        """The task is done.  Safe to repeat: a second call answers TaskGone."""
        self._task_call(task_id, "complete", variables=variables, localVariables=local_variables)

    def failure(
        self,
        task_id: str,
        *,
        message: str,
        details: str,
        retries: int,
        pause: float,
        variables: Typed,
        local_variables: Typed,
    ) -> None:
        """The attempt failed; `retries` is absolute, `pause` in seconds.

        Never repeated after a lost answer: a late second execution would end the lock of the next
        attempt.  Whoever asks the engine afterwards sees whether the retries are set.
        """
        self._task_call(
            task_id,
            "failure",
            repeat_lost=False,
            errorMessage=message,
            errorDetails=details,
            retries=retries,
            retryTimeout=_ms(pause),
            variables=variables,
            localVariables=local_variables,
        )

    def bpmn_error(self, task_id: str, code: str, message: str | None, variables: Typed) -> None:
        """The work ended in a business error.  Without a boundary event the path just ends."""
        self._task_call(
            task_id, "bpmnError", errorCode=code, errorMessage=message, variables=variables
        )

    def set_variables(self, process_instance_id: str, variables: Typed) -> None:
        """Set variables on a running process instance."""
        path = f"/process-instance/{_quoted(process_instance_id)}/variables"
        _done(self._http.call("POST", path, {"modifications": dict(variables)}))

    # -- locks ---------------------------------------------------------------------------------

    def extend_lock(self, task_id: str, duration: float) -> LockWindow:
        """Let the lock run for `duration` seconds from now; checks owner, expiry and suspension."""
        answer = self._task_call(task_id, "extendLock", newDuration=_ms(duration))
        return lock_window(duration, answer.dated, answer.ended - answer.began)

    def lock(self, task_id: str, duration: float) -> LockWindow:
        """Lock again, even after expiry or while suspended; LockLost if another worker holds it."""
        answer = self._task_call(task_id, "lock", lockDuration=_ms(duration))
        return lock_window(duration, answer.dated, answer.ended - answer.began)

    def unlock(self, task_id: str) -> None:
        """Give the lock back.  Checks no owner: only for tasks nobody else can hold.

        Never repeated after a lost answer: meanwhile a peer may have fetched the task.
        """
        path = f"/external-task/{_quoted(task_id)}/unlock"
        _done(self._http.call("POST", path, repeat_lost=False))

    # -- ask -----------------------------------------------------------------------------------

    def task(self, task_id: str) -> ExternalTask:
        """The task as it stands; TaskGone if it does not exist (or must not be read)."""
        return _parsed(_TASK, self._http.call("GET", f"/external-task/{_quoted(task_id)}"))

    def tasks(self, task_ids: Sequence[str]) -> Observed:
        """Those of the tasks that exist, in as few calls as possible."""
        asked: float | None = None
        found: dict[str, ExternalTask] = {}
        for start in range(0, len(task_ids), QUERY_IDS):
            ids = list(task_ids[start : start + QUERY_IDS])
            answer = self._http.call(
                "POST", f"/external-task?maxResults={len(ids)}", {"externalTaskIdIn": ids}
            )
            asked = answer.began if asked is None else asked
            found.update((task.id, task) for task in _parsed(_TASKS, answer))
        return Observed(found, 0.0 if asked is None else asked)

    def locked_between(self, earliest: float, latest: float) -> Observed:
        """Active tasks whose lock, ours, ends between the two (engine seconds)."""
        query = {
            "workerId": self.worker_id,
            "locked": True,
            "active": True,
            "lockExpirationAfter": _date(earliest),
            "lockExpirationBefore": _date(latest),
            "sorting": [{"sortBy": "lockExpirationTime", "sortOrder": "asc"}],
        }
        found: dict[str, ExternalTask] = {}
        asked = 0.0
        for first in itertools.count(0, PAGE):
            path = f"/external-task?firstResult={first}&maxResults={PAGE}"
            answer = self._http.call("POST", path, query)
            asked = asked or answer.began
            page = _parsed(_TASKS, answer)
            found.update((task.id, task) for task in page)
            if len(page) < PAGE:
                break
        return Observed(found, asked)

    def process_xml(self, process_definition_id: str) -> str:
        """The BPMN of a process definition."""
        path = f"/process-definition/{_quoted(process_definition_id)}/xml"
        return str(_object(self._http.call("GET", path)).get("bpmn20Xml") or "")

    def file_contents(self, execution_id: str, name: str, limit: int) -> bytes | None:
        """The bytes of a File variable that the execution can see; None if more than `limit`."""
        return self._http.download(file_address("", execution_id, name), limit)

    def now(self) -> float:
        """The engine's time in seconds since the epoch; asks for it where no answer has told it."""
        if not self.clock.is_set:
            self.version()
        return self.clock.now()

    def version(self) -> str:
        """The engine's version, such as "7.24.0"."""
        return str(_object(self._http.call("GET", "/version")).get("version"))

    # -- helpers -------------------------------------------------------------------------------

    def _task_call(
        self, task_id: str, verb: str, *, repeat_lost: bool = True, **members: Any
    ) -> Answer:
        path = f"/external-task/{_quoted(task_id)}/{verb}"
        body = {"workerId": self.worker_id, **members}
        return _done(self._http.call("POST", path, body, repeat_lost=repeat_lost))


def file_address(engine_url: str, execution_id: str, name: str) -> str:
    """Where the content of a File variable can be had."""
    return f"{engine_url}/process-instance/{_quoted(execution_id)}/variables/{_quoted(name)}/data"


def _done(answer: Answer) -> Answer:
    """The answer, if it is what the engine says of an act: 204 and nothing more.  Anything else
    comes from somebody on the way, and the act may not have been carried out.
    """
    if answer.status != 204:
        raise EngineMisconfigured(f"{answer.status} where the engine says 204: who answers there?")
    return answer


def _parsed(adapter: TypeAdapter[T], answer: Answer) -> T:
    try:
        return adapter.validate_json(answer.body)
    except ValidationError as error:
        # Never the values: they may be variables.
        faults = [f"{'.'.join(map(str, e['loc']))}: {e['type']}" for e in error.errors()[:3]]
        raise EngineMisconfigured(
            f"an answer that is not an external-task API's: {', '.join(faults)}"
        ) from None


def _object(answer: Answer) -> dict[str, Any]:
    return _parsed(_OBJECT, answer)


def _quoted(part: str) -> str:
    return quote(part, safe="")


def _ms(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def _date(engine_seconds: float) -> str:
    moment = datetime.fromtimestamp(engine_seconds, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}+0000"
