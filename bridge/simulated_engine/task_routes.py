"""The paths of external tasks and the command behind each.  The rules are in locking.py."""

from collections.abc import Callable, Iterable
from typing import Any

from bridge.simulated_engine import filters, queries
from bridge.simulated_engine.body import Body
from bridge.simulated_engine.errors import RestError, engine_failure, null_pointer
from bridge.simulated_engine.fetch import Fetcher
from bridge.simulated_engine.locking import ExternalTasks
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.wire import Request, Response, Route, route


class TaskRoutes:
    """`/external-task` and everything below it."""

    def __init__(self, store: Store, fetcher: Fetcher) -> None:
        self._store = store
        self._fetcher = fetcher
        self._tasks = ExternalTasks(store, fetcher.serve)

    def listed(self, wanted: Body) -> list[dict[str, Any]]:
        """The external tasks that pass the filters, sorted as they say."""
        return [row.as_json() for row in self._rows(wanted)]

    def routes(self) -> Iterable[Route]:
        """All of them, the busiest first."""
        tasks = self._tasks
        one = "/external-task/(?!(?:fetchAndLock|count|topic-names|retries)$)([^/]+)"
        yield route("fetchAndLock", "POST", "/external-task/fetchAndLock", self._fetch)
        commands = {
            "complete": tasks.complete,
            "extendLock": tasks.extend_lock,
            "failure": tasks.failure,
            "bpmnError": tasks.bpmn_error,
            "lock": tasks.lock,
        }
        for verb, command in commands.items():
            yield route(verb, "POST", f"{one}/{verb}", _command(command))
        yield route("unlock", "POST", f"{one}/unlock", lambda r: tasks.unlock(r.names[0]))
        yield route("query", "GET POST", "/external-task", self._query)
        yield route("count", "GET POST", "/external-task/count", self._count)
        yield route("topicNames", "GET", "/external-task/topic-names", self._topic_names)
        yield route("setRetries", "PUT", f"{one}/retries", self._retries)
        yield route("setRetriesSync", "PUT", "/external-task/retries", self._many_retries)
        yield route("setPriority", "PUT", f"{one}/priority", self._priority)
        yield route("errorDetails", "GET", f"{one}/errorDetails", self._error_details)
        yield route("getTask", "GET", one, self._task)

    def _fetch(self, request: Request) -> list[dict[str, Any]]:
        return self._fetcher.fetch_and_lock(request.body)

    def _rows(self, query: Body) -> list[filters.TaskRow]:
        with self._store.lock:
            ids = query.members.get("externalTaskIdIn")
            wanted = ids if isinstance(ids, list) and ids else self._store.tasks
            tasks = (self._store.tasks[i] for i in dict.fromkeys(wanted) if i in self._store.tasks)
            rows = (filters.TaskRow(t, self._store.instances[t.instance_id]) for t in tasks)
            found = queries.select(rows, filters.TASKS, query, self._store.clock.now_ms())
        return queries.sort(found, filters.TASKS, query)

    def _query(self, request: Request) -> list[dict[str, Any]]:
        rows = self._rows(_task_query(request))
        return [row.as_json() for row in queries.page(rows, request.query)]

    def _count(self, request: Request) -> dict[str, int]:
        return {"count": len(self._rows(_task_query(request)))}

    def _task(self, request: Request) -> dict[str, Any]:
        with self._store.lock:
            task = self._store.tasks.get(request.names[0])
            if task is None:
                told = f"External task with id {request.names[0]} does not exist"
                raise RestError(404, "RestException", told)
            return filters.TaskRow(task, self._store.instances[task.instance_id]).as_json()

    def _topic_names(self, request: Request) -> list[str]:
        names = {"withLockedTasks": "locked", "withUnlockedTasks": "notLocked"}
        names["withRetriesLeft"] = "withRetriesLeft"
        wanted = {names[name]: value for name, value in request.query.items() if name in names}
        return sorted({row.task.topic for row in self._rows(Body(wanted))})

    def _retries(self, request: Request) -> None:
        self._tasks.set_retries(request.names[0], request.body.optional_whole("retries"))

    def _many_retries(self, request: Request) -> None:
        body = request.body
        ids = dict.fromkeys(body.texts("externalTaskIds") or ())
        instances = set(body.texts("processInstanceIds") or ())
        with self._store.lock:
            chosen = body.mapping("externalTaskQuery")
            found = [] if chosen is None else [r.task for r in self._rows(Body(chosen))]
            found += [t for t in self._store.tasks.values() if t.instance_id in instances]
            ids.update(dict.fromkeys(task.id for task in found))
            self._tasks.set_all_retries(list(ids), body.optional_whole("retries"))

    def _priority(self, request: Request) -> None:
        priority = request.body.optional_whole("priority")
        if priority is None:
            raise null_pointer()
        self._tasks.set_priority(request.names[0], priority)

    def _error_details(self, request: Request) -> Response:
        with self._store.lock:
            task = self._store.tasks.get(request.names[0])
        if task is None:
            told = f"No external task found with id {request.names[0]}: externalTask is null"
            raise engine_failure(told, "NullValueException")
        if not task.error_details:
            return Response()
        return Response(200, task.error_details.encode(), "text/plain")


def _task_query(request: Request) -> Body:
    return request.filters(filters.TASKS)


def _command(command: Callable[[str, Body], None]) -> Callable[[Request], None]:
    return lambda request: command(request.names[0], request.body)
