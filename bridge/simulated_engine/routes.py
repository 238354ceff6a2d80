"""Finds the route of a request.  Knows the base path, the engine's name and the history."""

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, unquote

from bridge.simulated_engine import filters
from bridge.simulated_engine.clock import Clock
from bridge.simulated_engine.errors import RestError, invalid_request, not_there
from bridge.simulated_engine.fetch import Fetcher
from bridge.simulated_engine.process_routes import ProcessRoutes
from bridge.simulated_engine.processes import Processes
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.task_routes import TaskRoutes
from bridge.simulated_engine.wire import (
    Request,
    Response,
    Route,
    json_response,
    lists,
    route,
)

VERSION = "7.24.0-SIMULATED"
ENGINE_NAME = "default"
_BASE = "/engine-rest"


class OutsideError(Exception):
    """The path is not below the REST API: the servlet container answers, not the engine."""


class Routes:
    """All paths of the engine; `store`, `fetcher`, `processes` and `tasks` are its parts."""

    def __init__(self, clock: Clock) -> None:
        self.store = Store(clock)
        self.fetcher = Fetcher(self.store)
        self.processes = Processes(self.store, self.fetcher.serve)
        self.tasks = TaskRoutes(self.store, self.fetcher)
        self._routes = [
            *self.tasks.routes(),
            *ProcessRoutes(self.store, self.processes).routes(),
            *self._other_routes(),
        ]

    def find(self, method: str, target: str) -> tuple[Route, tuple[str, ...], dict[str, str]]:
        """The route, its path's variable parts and the query; raises 404 or 405."""
        path, _, query = target.partition("?")
        inner, known = _inner_path(path), False
        for candidate in self._routes:
            matched = candidate.path.fullmatch(inner)
            if matched and method in candidate.methods:
                names = tuple(unquote(part) for part in matched.groups() if part is not None)
                return candidate, names, dict(parse_qsl(query, keep_blank_values=True))
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

    def _other_routes(self) -> Iterable[Route]:
        store = self.store
        yield route("version", "GET", "/version", lambda _: {"version": VERSION})
        yield route("engines", "GET", "/engine", lambda _: [{"name": ENGINE_NAME}])
        yield from lists(
            self.store,
            "incidents",
            "/incident",
            store.incidents.values,
            filters.INCIDENTS,
        )
        yield from lists(
            self.store,
            "historyLog",
            "/history/external-task-log",
            lambda: store.log,
            filters.LOG,
        )
        yield route(
            "historyInstance",
            "GET",
            "/history/process-instance/(?!count$)([^/]+)",
            self._history_instance,
        )
        yield from lists(
            self.store,
            "historyInstances",
            "/history/process-instance",
            store.instances.values,
            filters.INSTANCES,
            shown=lambda instance: instance.as_history(),
        )
        yield from lists(
            self.store,
            "historyActivities",
            "/history/activity-instance",
            lambda: (v for visits in store.visits.values() for v in visits.values()),
            filters.VISITS,
        )
        yield route(
            "historyVariables", "GET", "/history/variable-instance", self._history_variables
        )

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


def _inner_path(path: str) -> str:
    """The path below the engine: the base and `/engine/{name}` are taken away."""
    if path != _BASE and not path.startswith(f"{_BASE}/"):
        raise OutsideError(path)
    inner = path.removeprefix(_BASE)
    named = re.fullmatch(r"/engine/([^/]+)(/.+)", inner)
    if named is None:
        return inner
    if unquote(named.group(1)) != ENGINE_NAME:
        raise invalid_request("No process engine available")
    return str(named.group(2))
