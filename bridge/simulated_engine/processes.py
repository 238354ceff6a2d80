"""Deployments and process instances.  Their variables are in scopes.py, tasks in locking.py."""

import email
import email.policy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.bpmn import Process, read_bpmn
from bridge.simulated_engine.clock import date_text
from bridge.simulated_engine.errors import RestError, invalid_request, not_there, wrapped
from bridge.simulated_engine.state import Definition, Instance
from bridge.simulated_engine.store import Store, new_id


@dataclass(frozen=True)
class Deployment:
    """A deployment's parts: `files` by resource name."""

    name: str | None
    tenant_id: str | None
    files: Mapping[str, bytes]
    filtering: bool = False

    @classmethod
    def read(cls, content_type: str, content: bytes) -> "Deployment":
        """Read a multipart form; without a file it is a 400, another content type a 415."""
        if not content_type.startswith("multipart/form-data"):
            raise RestError(415, "NotSupportedException", "HTTP 415 Unsupported Media Type")
        head = f"Content-Type: {content_type}\r\n\r\n".encode()
        message = email.message_from_bytes(head + content, policy=email.policy.HTTP)
        fields: dict[str, str] = {}
        files: dict[str, bytes] = {}
        for part in message.iter_parts():
            name = part.get_param("name", header="content-disposition")
            data, file_name = part.get_payload(decode=True), part.get_filename()
            if isinstance(data, bytes) and file_name:
                files[file_name] = data
            elif isinstance(data, bytes):
                fields[str(name)] = data.decode(errors="replace").strip()
        if not files:
            raise invalid_request("No file name found in the deployment resource")
        filtering = fields.get("enable-duplicate-filtering") == "true"
        return cls(fields.get("deployment-name"), fields.get("tenant-id"), files, filtering)


class Processes:
    """Deploys BPMN files, starts, suspends and ends instances."""

    def __init__(self, store: Store, woken: Callable[[], None]) -> None:
        self._store = store
        self._woken = woken
        self._deployments: dict[tuple[str | None, str | None], tuple[Mapping[str, bytes], str]] = {}

    def deploy(self, deployment: Deployment) -> dict[str, Any]:
        """Deploy all its BPMN files or none; other files are kept unread."""
        key = deployment.name, deployment.tenant_id
        with self._store.lock:
            known = self._deployments.get(key)
            if deployment.filtering and known is not None and known[0] == deployment.files:
                return self._deployment_json(known[1], deployment, None)
            deployment_id, definitions = new_id(), {}
            for resource, text in deployment.files.items():
                if resource.endswith((".bpmn", ".bpmn20.xml")):
                    for process in read_bpmn(text, resource):
                        made = self._define(process, deployment_id, resource, text, deployment)
                        definitions[made.id] = made
            self._store.definitions.update(definitions)
            self._deployments[key] = deployment.files, deployment_id
        shown = {key: definition.as_json() for key, definition in definitions.items()}
        return self._deployment_json(deployment_id, deployment, shown or None)

    def latest(self, key: str, tenant: str | None) -> Definition:
        """The newest version of a process of that tenant (None: of no tenant), or 404."""
        found = [
            definition
            for definition in self._store.definitions.values()
            if definition.key == key and definition.tenant_id == tenant
        ]
        if not found:
            of = "no tenant-id" if tenant is None else f"tenant-id: {tenant}"
            told = f"No matching process definition with key: {key} and {of}"
            raise RestError(404, "RestException", told)
        return max(found, key=lambda definition: definition.version)

    def definition(self, definition_id: str) -> Definition:
        """The definition of that id, or 404."""
        found = self._store.definitions.get(definition_id)
        if found is None:
            raise not_there(f"No matching definition with id {definition_id}", 0)
        return found

    def start(self, definition: Definition, body: Body) -> dict[str, Any]:
        """Start an instance and run it to its first external tasks."""
        problem = f"Cannot instantiate process definition {definition.id}"
        with wrapped(problem, problem), self._store.lock:
            variables = body.variables()
            instance = Instance(
                new_id(),
                definition,
                body.text("businessKey"),
                definition.tenant_id,
                self._store.clock.now_ms(),
                variables,
            )
            change = self._store.begin(instance)
            self._store.enter(change, definition.process.start)
            started = self._store.commit(change)
            self._woken()
        shown = started.as_json()
        if body.flag("withVariablesInReturn"):
            shown["variables"] = {n: v.as_json() for n, v in started.variables.items()}
        return shown

    def instance(self, instance_id: str) -> Instance:
        """The running instance, or 404."""
        found = self._store.running(instance_id)
        if found is None:
            raise not_there(f"Process instance with id {instance_id} does not exist")
        return found

    def suspend(self, instance_id: str, *, suspended: bool) -> None:
        """Suspend or activate an instance; its tasks keep their locks; no instance, no error."""
        with self._store.lock:
            instance = self._store.running(instance_id)
            if instance is not None:
                self._store.commit(self._store.begin(replace(instance, suspended=suspended)))

    def cancel(self, instance_id: str) -> None:
        """Delete a running instance: its tasks are gone, its history stays."""
        with self._store.lock:
            instance = self._store.running(instance_id)
            if instance is None:
                raise not_there(
                    f"No process instance found for id '{instance_id}': processInstance is null", 0
                )
            change = self._store.begin(
                replace(instance, end_state="EXTERNALLY_TERMINATED", joined={})
            )
            for task in list(self._store.tasks.values()):
                if task.instance_id == instance_id:
                    self._store.leave(change, task, "deletion")
            self._store.commit(change)

    def _define(
        self, process: Process, deployment_id: str, resource: str, text: bytes, part: Deployment
    ) -> Definition:
        versions = [
            definition.version
            for definition in self._store.definitions.values()
            if definition.key == process.key and definition.tenant_id == part.tenant_id
        ]
        version = max(versions, default=0) + 1
        return Definition(
            f"{process.key}:{version}:{new_id()}",
            version,
            deployment_id,
            resource,
            part.tenant_id,
            process,
            text.decode(errors="replace"),
        )

    def _deployment_json(
        self, deployment_id: str, deployment: Deployment, shown: dict[str, Any] | None
    ) -> dict[str, Any]:
        return {
            "links": [],
            "id": deployment_id,
            "name": deployment.name,
            "source": None,
            "deploymentTime": date_text(self._store.clock.now_ms()),
            "tenantId": deployment.tenant_id,
            "deployedProcessDefinitions": shown,
            "deployedCaseDefinitions": None,
            "deployedDecisionDefinitions": None,
            "deployedDecisionRequirementsDefinitions": None,
        }
