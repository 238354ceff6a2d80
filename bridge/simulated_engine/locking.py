"""The lock rules: what a worker may do to an external task, and what it costs it.

One method per verb of the REST API, each atomic.  Fetching is in fetch.py.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.errors import (
    RestError,
    bad_user_request,
    engine_failure,
    invalid_request,
    not_found,
    not_there,
    null_value,
)
from bridge.simulated_engine.state import Incident, LogEntry, Task
from bridge.simulated_engine.store import Change, Store, new_id
from bridge.simulated_engine.values import Variable

_MAX_MESSAGE = 666
_NEGATIVE_RETRIES = (
    "The number of retries cannot be negative: retries is not greater than or equal to 0"
)


class ExternalTasks:
    """Commands on single external tasks; `woken` is called when one became available."""

    def __init__(self, store: Store, woken: Callable[[], None]) -> None:
        self._store = store
        self._woken = woken

    def find(self, task_id: str) -> Task:
        """The task, or 404."""
        task = self._store.tasks.get(task_id)
        if task is None:
            raise not_found(f"External task with id {task_id} does not exist")
        return task

    def complete(self, task_id: str, body: Body) -> None:
        """Finish the task and move on; the owner may do so even after its lock expired."""
        variables, local = body.variables(), body.variables("localVariables")
        with self._store.lock:
            task = self._owned(
                task_id, body, "External Task {id} cannot be completed by worker '{worker}'."
            )
            change = self._active(task)
            self._set(change, task, variables, local)
            self._store.leave(change, task, "success")
            self._continue(change, task.node.outgoing)

    def failure(self, task_id: str, body: Body) -> None:
        """Record a failure: `retries` and `retryTimeout` (ms) are 0 when absent."""
        variables, local = body.variables(), body.variables("localVariables")
        retries, pause_ms = body.whole("retries"), body.whole("retryTimeout")
        with self._store.lock:
            if body.text("workerId") is None:
                raise null_value("workerId")
            for name, value in (("retries", retries), ("retryDuration", pause_ms)):
                if value < 0:
                    raise engine_failure(f"{name} is not greater than or equal to 0")
            task = self._owned(
                task_id,
                body,
                "Failure of External Task {id} cannot be reported by worker '{worker}'.",
            )
            change = self._active(task)
            self._set(change, task, variables, local)
            message = body.text("errorMessage")
            failed = replace(
                task,
                error_message=message[:_MAX_MESSAGE] if message is not None else None,
                error_details=body.text("errorDetails") or task.error_details,
                lock_expires_ms=self._store.clock.now_ms() + pause_ms,
            )
            self._set_retries(change, failed, retries)
            # the engine writes this row before it sets the retries, so the row has the old ones
            change.log.append(LogEntry(new_id(), "failure", failed, self._store.clock.now_ms()))
            self._store.commit(change)

    def bpmn_error(self, task_id: str, body: Body) -> None:
        """Follow the boundary event that catches the code; without one the path just ends."""
        variables = body.variables()
        with self._store.lock:
            if body.text("workerId") is None:
                raise null_value("workerId")
            code = body.required("errorCode")
            task = self._owned(
                task_id,
                body,
                "Bpmn error of External Task {id} cannot be reported by worker '{worker}'.",
            )
            change = self._active(task)
            self._set(change, task, variables, {})
            self._store.leave(change, task, "deletion")
            boundary = task.node.catching(code)
            if boundary is None:
                self._continue(change, ())
                return
            told = {
                boundary.code_variable: code,
                boundary.message_variable: body.text("errorMessage"),
            }
            values = {name: Variable("String", text) for name, text in told.items() if name}
            self._store.set_variables(change, values, "")
            self._continue(change, (boundary.id,))

    def extend_lock(self, task_id: str, body: Body) -> None:
        """Let the lock end `newDuration` ms from now; only its owner, only before it expired."""
        duration_ms = body.whole("newDuration")
        with self._store.lock:
            if duration_ms <= 0:
                raise bad_user_request("lockTime is not greater than 0")
            task = self._owned(
                task_id,
                body,
                "The lock of the External Task {id} cannot be extended by worker '{worker}''.",
            )
            now_ms = self._store.clock.now_ms()
            if (task.lock_expires_ms or 0) < now_ms:
                raise bad_user_request(
                    "Cannot extend a lock that expired: lockExpirationTime is not "
                    f"greater than or equal to {now_ms}"
                )
            change = self._active(task)
            change.put[task.id] = replace(task, lock_expires_ms=now_ms + duration_ms)
            self._store.commit(change)

    def lock(self, task_id: str, body: Body) -> None:
        """Take or renew the lock for `lockDuration` ms, unless another's is still alive."""
        duration_ms = body.whole("lockDuration")
        with self._store.lock:
            worker = body.required("workerId")
            if duration_ms <= 0:
                raise bad_user_request("lockDuration is not greater than 0")
            task, now_ms = self.find(task_id), self._store.clock.now_ms()
            alive = task.lock_expires_ms is not None and task.lock_expires_ms >= now_ms
            if task.worker_id not in {None, worker} and alive:
                raise bad_user_request(
                    f"External Task {task_id} cannot be locked by worker '{worker}'. "
                    f"It is locked by worker '{task.worker_id}'."
                )
            change = self._store.begin(self._store.instances[task.instance_id])
            expires_ms = now_ms + duration_ms
            change.put[task.id] = replace(task, worker_id=worker, lock_expires_ms=expires_ms)
            self._store.commit(change)

    def unlock(self, task_id: str) -> None:
        """Free the task, whoever asks, and wake waiting polls."""
        with self._store.lock:
            task = self.find(task_id)
            change = self._store.begin(self._store.instances[task.instance_id])
            change.put[task.id] = replace(task, worker_id=None, lock_expires_ms=None)
            self._store.commit(change)
            self._woken()

    def set_retries(self, task_id: str, retries: int | None) -> None:
        """Set the retries of one task; 0 opens an incident, more closes it."""
        if retries is None:
            raise invalid_request("The number of retries cannot be null.")
        if retries < 0:
            raise RestError(400, "BadUserRequestException", _NEGATIVE_RETRIES, 0)
        with self._store.lock:
            self._set_retries_of([self.find(task_id)], retries)

    def set_all_retries(self, task_ids: list[str], retries: int | None) -> None:
        """Set the retries of all these tasks or of none."""
        if not task_ids:
            raise invalid_request("externalTaskIds is empty")
        if "null" in task_ids:
            raise invalid_request(
                "External task id cannot be null: externalTaskIds contains null value"
            )
        if retries is None:
            raise invalid_request("The number of retries cannot be null.")
        if retries < 0:
            raise invalid_request(_NEGATIVE_RETRIES)
        with self._store.lock:
            for task_id in task_ids:
                if task_id not in self._store.tasks:
                    raise not_there(
                        f"Cannot find external task with id {task_id}: externalTask is null"
                    )
            self._set_retries_of([self.find(task_id) for task_id in task_ids], retries)

    def _set_retries_of(self, tasks: list[Task], retries: int) -> None:
        for task in tasks:
            change = self._store.begin(self._store.instances[task.instance_id])
            self._set_retries(change, task, retries)
            self._store.commit(change)

    def set_priority(self, task_id: str, priority: int) -> None:
        """Change the task's priority."""
        with self._store.lock:
            task = self.find(task_id)
            change = self._store.begin(self._store.instances[task.instance_id])
            change.put[task.id] = replace(task, priority=priority)
            self._store.commit(change)

    def _owned(self, task_id: str, body: Body, refusal: str) -> Task:
        worker = body.required("workerId")
        task = self.find(task_id)
        if task.worker_id != worker:
            owner = "null" if task.worker_id is None else task.worker_id
            told = refusal.format(id=task_id, worker=worker)
            raise bad_user_request(f"{told} It is locked by worker '{owner}'.")
        return task

    def _active(self, task: Task) -> Change:
        instance = self._store.instances[task.instance_id]
        if instance.suspended:
            raise bad_user_request(f"ENGINE-03043 ExternalTask with id '{task.id}' is suspended.")
        return self._store.begin(instance)

    def _set(
        self,
        change: Change,
        task: Task,
        variables: Mapping[str, Variable],
        local: Mapping[str, Variable],
    ) -> None:
        self._store.set_local(change, local, task.execution_id)
        self._store.set_variables(change, variables, task.execution_id)

    def _set_retries(self, change: Change, task: Task, retries: int) -> None:
        had_some = task.retries is None or task.retries > 0
        change.put[task.id] = replace(task, retries=retries)
        if had_some and retries == 0:
            now_ms = self._store.clock.now_ms()
            change.opened.append(Incident(new_id(), change.put[task.id], now_ms))
        elif retries > 0:
            change.resolved.append(task.id)

    def _continue(self, change: Change, following: tuple[str, ...]) -> None:
        for node_id in following:
            self._store.enter(change, node_id)
        self._store.commit(change)
        if change.put:
            self._woken()


def locked_json(
    task: Task, variables: Mapping[str, Variable], *, extensions: bool
) -> dict[str, Any]:
    """A task as fetchAndLock answers it: `suspended` is always false there."""
    return task.as_json(suspended=False) | {
        "errorDetails": task.error_details,
        "variables": {name: value.as_json() for name, value in variables.items()},
        "extensionProperties": dict(task.node.properties or {}) if extensions else {},
    }
