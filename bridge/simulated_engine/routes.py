"""The REST paths and the command behind each.  Knows no sockets; every rule is elsewhere."""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, quote, unquote

from bridge.simulated_engine import filters, queries
from bridge.simulated_engine.body import Body
from bridge.simulated_engine.clock import Clock
from bridge.simulated_engine.errors import (
    RestError,
    engine_failure,
    invalid_request,
    not_there,
    null_pointer,
)
from bridge.simulated_engine.fetch import Fetcher
from bridge.simulated_engine.locking import ExternalTasks
from bridge.simulated_engine.processes import Deployment, Processes
from bridge.simulated_engine.scopes import Scope
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.values import Variable

VERSION = "7.24.0-SIMULATED"
ENGINE_NAME = "default"
_BASE = "/engine-rest"
OUTSIDE = RestError(404, "", "this path is not the REST API's")
Filters = Mapping[str, filters.Filter]
Sorting = Mapping[str, Callable[[Any], Any]]


@dataclass(frozen=True)
class Request:
    """A request as the routes see it; `names` are the variable parts of the path."""

    method: str
    path: str
    names: tuple[str, ...]
    query: Mapping[str, str]
    content_type: str
    content: bytes

    @property
    def body(self) -> Body:
        """The JSON body; an empty one counts as `{}` when it is announced as JSON."""
        if not self.content and self.content_type.startswith("application/json"):
            return Body({})
        return Body.parse(self.content)

    def filters(self, known: Filters, sorting: Sorting) -> Body:
        """The query's members: from the body of a POST, else from the query string."""
        if self.method == "POST":
            return self.body
        return queries.from_query_string(self.query, known, sorting)


@dataclass(frozen=True)
class Response:
    """An answer; `content` None is an empty 204."""

    status: int = 204
    content: bytes | None = None
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Route:
    """One path: `verb` is its name in the call log and for faults."""

    verb: str
    methods: tuple[str, ...]
    path: re.Pattern[str]
    answer: Callable[[Request], Any]


def json_response(status: int, value: Any) -> Response:
    """A JSON answer."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return Response(status, text.encode("utf-8", "surrogatepass"))


def error_response(error: RestError) -> Response:
    """An error answer in the engine's form; outside of it the servlet container's page."""
    if error is OUTSIDE:
        page = b"<!doctype html><title>HTTP Status 404</title><h1>HTTP Status 404</h1>"
        return Response(404, page, "text/html;charset=utf-8")
    return json_response(error.status, error.body())


class Routes:
    """Finds the route of a request and answers it."""

    def __init__(self, clock: Clock) -> None:
        self.store = Store(clock)
        self.fetcher = Fetcher(self.store)
        self.tasks = ExternalTasks(self.store, self.fetcher.serve)
        self.processes = Processes(self.store, self.fetcher.serve)
        self._routes = [*self._task_routes(), *self._process_routes(), *self._other_routes()]

    def find(self, method: str, target: str) -> tuple[Route, tuple[str, ...], dict[str, str]]:
        """The route, its path's variable parts and the query; raises 404 or 405."""
        path, _, query = target.partition("?")
        inner, known = _inner_path(path), False
        for route in self._routes:
            matched = route.path.fullmatch(inner)
            if matched and method in route.methods:
                names = tuple(unquote(part) for part in matched.groups() if part is not None)
                return route, names, dict(parse_qsl(query, keep_blank_values=True))
            known = known or matched is not None
        if known:
            raise RestError(405, "NotAllowedException", "HTTP 405 Method Not Allowed")
        raise RestError(404, "NotFoundException", "HTTP 404 Not Found")

    def answer(self, route: Route, request: Request) -> Response:
        """Run the command; a value becomes JSON, None an empty 204."""
        needs_json = route.verb not in {"deploy", "unlock"} and request.content
        if needs_json and not request.content_type.startswith("application/json"):
            raise RestError(415, "NotSupportedException", "HTTP 415 Unsupported Media Type")
        value = route.answer(request)
        if isinstance(value, Response):
            return value
        return Response() if value is None else json_response(200, value)

    def query(self, wanted: Body) -> list[dict[str, Any]]:
        """The external tasks that pass the filters, sorted as they say."""
        return [row.as_json() for row in self._rows(wanted)]

    def _task_routes(self) -> Iterable[Route]:
        tasks = self.tasks
        one = "/external-task/(?!(?:fetchAndLock|count|topic-names|retries)$)([^/]+)"
        yield _route("fetchAndLock", "POST", "/external-task/fetchAndLock", self._fetch)
        commands = {
            "complete": tasks.complete,
            "extendLock": tasks.extend_lock,
            "failure": tasks.failure,
            "bpmnError": tasks.bpmn_error,
            "lock": tasks.lock,
        }
        for verb, command in commands.items():
            yield _route(verb, "POST", f"{one}/{verb}", _command(command))
        yield _route("unlock", "POST", f"{one}/unlock", lambda r: tasks.unlock(r.names[0]))
        yield _route("query", "GET POST", "/external-task", self._query)
        yield _route("count", "GET POST", "/external-task/count", self._count)
        yield _route("topicNames", "GET", "/external-task/topic-names", self._topic_names)
        yield _route("setRetries", "PUT", f"{one}/retries", self._retries)
        yield _route("setRetriesSync", "PUT", "/external-task/retries", self._many_retries)
        yield _route("setPriority", "PUT", f"{one}/priority", self._priority)
        yield _route("errorDetails", "GET", f"{one}/errorDetails", self._error_details)
        yield _route("getTask", "GET", one, self._task)

    def _process_routes(self) -> Iterable[Route]:
        processes, key = self.processes, "/process-definition/key/([^/]+)"
        tenant, one = f"{key}/tenant-id/([^/]+)", "/process-definition/([^/]+)"
        instance = "/process-instance/([^/]+)"
        yield _route(
            "deploy",
            "POST",
            "/deployment/create",
            lambda r: processes.deploy(Deployment.read(r.content_type, r.content)),
        )
        for path in (f"{key}/start", f"{tenant}/start", f"{one}/start"):
            yield _route("startProcess", "POST", path, self._start)
        for path in (f"{key}/xml", f"{tenant}/xml", f"{one}/xml"):
            yield _route("definitionXml", "GET", path, self._xml)
        yield from self._lists(
            "definition",
            "/process-definition",
            self.store.definitions.values,
            filters.DEFINITION_FILTERS,
            filters.DEFINITION_SORTING,
        )
        for path in (key, tenant, one):
            yield _route("definition", "GET", path, lambda r: self._definition(r).as_json())
        yield _route(
            "suspend",
            "PUT",
            f"{instance}/suspended",
            lambda r: processes.suspend(r.names[0], suspended=r.body.flag("suspended")),
        )
        yield from self._variable_routes("/process-instance/([^/]+)/variables", local=False)
        yield from self._variable_routes("/execution/([^/]+)/localVariables", local=True)
        yield from self._lists(
            "instances",
            "/process-instance",
            lambda: (i for i in self.store.instances.values() if i.end_ms is None),
            filters.INSTANCE_FILTERS,
            filters.INSTANCE_SORTING,
        )
        yield _route("deleteInstance", "DELETE", instance, lambda r: processes.cancel(r.names[0]))
        yield _route(
            "instance", "GET", instance, lambda r: processes.instance(r.names[0]).as_json()
        )

    def _variable_routes(self, path: str, *, local: bool) -> Iterable[Route]:
        scope = Scope(self.store, local=local)

        def all_of(request: Request) -> dict[str, Any]:
            found = scope.visible(request.names[0])
            return {name: variable.as_json() for name, variable in found.items()}

        def one(request: Request) -> dict[str, Any]:
            return scope.one(request.names[0], request.names[1]).as_json()

        def data(request: Request) -> Response:
            return _binary(request.names[1], scope.one(request.names[0], request.names[1]))

        def write(request: Request) -> None:
            scope.write(request.names[0], request.body)

        def put(request: Request) -> None:
            scope.put(request.names[0], request.names[1], request.body)

        yield _route("variableData", "GET", f"{path}/([^/]+)/data", data)
        yield _route("variable", "GET", f"{path}/([^/]+)", one)
        yield _route("putVariable", "PUT", f"{path}/([^/]+)", put)
        yield _route("variables", "GET", path, all_of)
        yield _route("writeVariables", "POST", path, write)

    def _other_routes(self) -> Iterable[Route]:
        store = self.store
        yield _route("version", "GET", "/version", lambda _: {"version": VERSION})
        yield _route("engines", "GET", "/engine", lambda _: [{"name": ENGINE_NAME}])
        yield from self._lists(
            "incidents",
            "/incident",
            store.incidents.values,
            filters.INCIDENT_FILTERS,
            filters.INCIDENT_SORTING,
        )
        yield from self._lists(
            "historyLog",
            "/history/external-task-log",
            lambda: store.log,
            filters.LOG_FILTERS,
            filters.LOG_SORTING,
        )
        yield _route(
            "historyInstance",
            "GET",
            "/history/process-instance/(?!count$)([^/]+)",
            self._history_instance,
        )
        yield from self._lists(
            "historyInstances",
            "/history/process-instance",
            store.instances.values,
            filters.INSTANCE_FILTERS,
            filters.INSTANCE_SORTING,
            shown=lambda instance: instance.as_history(),
        )
        yield from self._lists(
            "historyActivities",
            "/history/activity-instance",
            lambda: (v for visits in store.visits.values() for v in visits.values()),
            filters.VISIT_FILTERS,
            filters.VISIT_SORTING,
        )
        yield _route(
            "historyVariables", "GET", "/history/variable-instance", self._history_variables
        )

    def _lists(
        self,
        verb: str,
        path: str,
        rows: Callable[[], Iterable[Any]],
        known: Filters,
        sorting: Sorting,
        *,
        shown: Callable[[Any], dict[str, Any]] = lambda row: row.as_json(),
    ) -> Iterable[Route]:
        def chosen(request: Request) -> list[Any]:
            wanted = request.filters(known, sorting)
            with self.store.lock:
                found = queries.select(rows(), known, wanted, self.store.clock.now_ms())
                return queries.sort(found, sorting, wanted)

        def listed(request: Request) -> list[dict[str, Any]]:
            return [shown(row) for row in queries.page(chosen(request), request.query)]

        yield _route(
            f"{verb}Count", "GET POST", f"{path}/count", lambda r: {"count": len(chosen(r))}
        )
        yield _route(verb, "GET POST", path, listed)

    def _fetch(self, request: Request) -> list[dict[str, Any]]:
        return self.fetcher.fetch_and_lock(request.body)

    def _rows(self, query: Body) -> list[filters.TaskRow]:
        with self.store.lock:
            ids = query.members.get("externalTaskIdIn")
            wanted = ids if isinstance(ids, list) and ids else self.store.tasks
            tasks = (self.store.tasks[i] for i in dict.fromkeys(wanted) if i in self.store.tasks)
            rows = (filters.TaskRow(t, self.store.instances[t.instance_id]) for t in tasks)
            found = queries.select(rows, filters.TASK_FILTERS, query, self.store.clock.now_ms())
        return queries.sort(found, filters.TASK_SORTING, query)

    def _query(self, request: Request) -> list[dict[str, Any]]:
        rows = self._rows(_task_query(request))
        return [row.as_json() for row in queries.page(rows, request.query)]

    def _count(self, request: Request) -> dict[str, int]:
        return {"count": len(self._rows(_task_query(request)))}

    def _task(self, request: Request) -> dict[str, Any]:
        with self.store.lock:
            task = self.store.tasks.get(request.names[0])
            if task is None:
                told = f"External task with id {request.names[0]} does not exist"
                raise RestError(404, "RestException", told)
            return filters.TaskRow(task, self.store.instances[task.instance_id]).as_json()

    def _topic_names(self, request: Request) -> list[str]:
        names = {"withLockedTasks": "locked", "withUnlockedTasks": "notLocked"}
        names["withRetriesLeft"] = "withRetriesLeft"
        wanted = {names[name]: value for name, value in request.query.items() if name in names}
        return sorted({row.task.topic for row in self._rows(Body(wanted))})

    def _retries(self, request: Request) -> None:
        self.tasks.set_retries(request.names[0], request.body.optional_whole("retries"))

    def _many_retries(self, request: Request) -> None:
        body = request.body
        ids = dict.fromkeys(body.texts("externalTaskIds") or ())
        instances = set(body.texts("processInstanceIds") or ())
        with self.store.lock:
            chosen = body.mapping("externalTaskQuery")
            found = [] if chosen is None else [r.task for r in self._rows(Body(chosen))]
            found += [t for t in self.store.tasks.values() if t.instance_id in instances]
            ids.update(dict.fromkeys(task.id for task in found))
            self.tasks.set_all_retries(list(ids), body.optional_whole("retries"))

    def _priority(self, request: Request) -> None:
        priority = request.body.optional_whole("priority")
        if priority is None:
            raise null_pointer()
        self.tasks.set_priority(request.names[0], priority)

    def _error_details(self, request: Request) -> Response:
        with self.store.lock:
            task = self.store.tasks.get(request.names[0])
        if task is None:
            told = f"No external task found with id {request.names[0]}: externalTask is null"
            raise engine_failure(told, "NullValueException")
        if not task.error_details:
            return Response()
        return Response(200, task.error_details.encode(), "text/plain")

    def _definition(self, request: Request) -> Any:
        with self.store.lock:
            if "/process-definition/key/" in request.path:
                key, *tenant = request.names
                return self.processes.latest(key, tenant[0] if tenant else None)
            return self.processes.definition(request.names[0])

    def _start(self, request: Request) -> dict[str, Any]:
        return self.processes.start(self._definition(request), request.body)

    def _xml(self, request: Request) -> dict[str, str]:
        definition = self._definition(request)
        return {"id": definition.id, "bpmn20Xml": definition.xml}

    def _history_instance(self, request: Request) -> dict[str, Any]:
        found = self.store.instances.get(request.names[0])
        if found is None:
            raise not_there(f"Historic process instance with id {request.names[0]} does not exist")
        return found.as_history()

    def _history_variables(self, request: Request) -> list[dict[str, Any]]:
        wanted, name = request.query.get("processInstanceId"), request.query.get("variableName")
        with self.store.lock:
            instances = [i for i in self.store.instances.values() if wanted in {None, i.id}]
        return [
            variable.as_json()
            | {"name": key, "processInstanceId": instance.id, "tenantId": instance.tenant_id}
            for instance in instances
            for key, variable in instance.variables.items()
            if name in {None, key}
        ]


def _route(verb: str, methods: str, path: str, answer: Callable[[Request], Any]) -> Route:
    return Route(verb, tuple(methods.split()), re.compile(path), answer)


def _task_query(request: Request) -> Body:
    return request.filters(filters.TASK_FILTERS, filters.TASK_SORTING)


def _command(command: Callable[[str, Body], None]) -> Callable[[Request], None]:
    return lambda request: command(request.names[0], request.body)


def _inner_path(path: str) -> str:
    """The path below the engine: the base and `/engine/{name}` are taken away."""
    if path != _BASE and not path.startswith(f"{_BASE}/"):
        raise OUTSIDE
    inner = path.removeprefix(_BASE)
    named = re.fullmatch(r"/engine/([^/]+)(/.+)", inner)
    if named is None:
        return inner
    if unquote(named.group(1)) != ENGINE_NAME:
        raise invalid_request("No process engine available")
    return named.group(2)


def _binary(name: str, variable: Variable) -> Response:
    if variable.content is None:
        raise invalid_request(f"Value of variable with id {name} is not a binary value.")
    if variable.type == "Bytes":
        return Response(200, variable.content, "application/octet-stream")
    info = variable.value_info
    kind = info.get("mimeType") or "application/octet-stream"
    if info.get("encoding"):
        kind += f";charset={info['encoding']}"
    file_name = str(info["filename"])
    disposition = f"attachment; filename=\"{file_name}\"; filename*=UTF-8''{quote(file_name)}"
    return Response(200, variable.content, kind, {"Content-Disposition": disposition})
