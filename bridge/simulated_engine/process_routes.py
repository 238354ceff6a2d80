"""The paths of definitions, instances and variables and the command behind each."""

from collections.abc import Iterable
from typing import Any

from bridge.simulated_engine import filters
from bridge.simulated_engine.processes import Deployment, Processes
from bridge.simulated_engine.scopes import Scope
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.wire import (
    Request,
    Response,
    Route,
    binary_response,
    lists,
    route,
)


class ProcessRoutes:
    """`/deployment`, `/process-definition`, `/process-instance` and `/execution`."""

    def __init__(self, store: Store, processes: Processes) -> None:
        self._store = store
        self._processes = processes

    def routes(self) -> Iterable[Route]:
        """All of them."""
        processes, key = self._processes, "/process-definition/key/([^/]+)"
        tenant, one = f"{key}/tenant-id/([^/]+)", "/process-definition/([^/]+)"
        instance = "/process-instance/([^/]+)"
        yield route(
            "deploy",
            "POST",
            "/deployment/create",
            lambda r: processes.deploy(Deployment.read(r.content_type, r.content)),
        )
        for path in (f"{key}/start", f"{tenant}/start", f"{one}/start"):
            yield route("startProcess", "POST", path, self._start)
        for path in (f"{key}/xml", f"{tenant}/xml", f"{one}/xml"):
            yield route("definitionXml", "GET", path, self._xml)
        yield from lists(
            self._store,
            "definition",
            "/process-definition",
            self._definitions,
            filters.DEFINITIONS,
        )
        for path in (key, tenant, one):
            yield route("definition", "GET", path, lambda r: self._definition(r).as_json())
        yield route(
            "suspend",
            "PUT",
            f"{instance}/suspended",
            lambda r: processes.suspend(r.names[0], suspended=r.body.flag("suspended")),
        )
        yield from self._variable_routes("/process-instance/([^/]+)/variables", local=False)
        yield from self._variable_routes("/execution/([^/]+)/localVariables", local=True)
        yield from lists(
            self._store,
            "instances",
            "/process-instance",
            lambda: (i for i in self._store.instances.values() if i.end_ms is None),
            filters.INSTANCES,
        )
        yield route("deleteInstance", "DELETE", instance, lambda r: processes.cancel(r.names[0]))
        yield route("instance", "GET", instance, lambda r: processes.instance(r.names[0]).as_json())

    def _variable_routes(self, path: str, *, local: bool) -> Iterable[Route]:
        scope = Scope(self._store, local=local)

        def all_of(request: Request) -> dict[str, Any]:
            found = scope.visible(request.names[0])
            return {name: variable.as_json() for name, variable in found.items()}

        def one(request: Request) -> dict[str, Any]:
            return scope.one(request.names[0], request.names[1]).as_json()

        def data(request: Request) -> Response:
            return binary_response(request.names[1], scope.one(request.names[0], request.names[1]))

        def write(request: Request) -> None:
            scope.write(request.names[0], request.body)

        def put(request: Request) -> None:
            scope.put(request.names[0], request.names[1], request.body)

        yield route("variableData", "GET", f"{path}/([^/]+)/data", data)
        yield route("variable", "GET", f"{path}/([^/]+)", one)
        yield route("putVariable", "PUT", f"{path}/([^/]+)", put)
        yield route("variables", "GET", path, all_of)
        yield route("writeVariables", "POST", path, write)

    def _definitions(self) -> Iterable[filters.DefinitionRow]:
        every = sorted(self._store.definitions.values(), key=lambda d: d.version)
        latest = {(d.key, d.tenant_id): d.id for d in every}
        for d in every:
            yield filters.DefinitionRow(d, d.id == latest[d.key, d.tenant_id])

    def _definition(self, request: Request) -> Any:
        with self._store.lock:
            if "/process-definition/key/" in request.path:
                key, *tenant = request.names
                return self._processes.latest(key, tenant[0] if tenant else None)
            return self._processes.definition(request.names[0])

    def _start(self, request: Request) -> dict[str, Any]:
        return self._processes.start(self._definition(request), request.body)

    def _xml(self, request: Request) -> dict[str, str]:
        definition = self._definition(request)
        return {"id": definition.id, "bpmn20Xml": definition.xml}
