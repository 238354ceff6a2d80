"""What tests do to an engine over REST: deploy, start, look, interfere."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import requests

_PROCESS = """<?xml version="1.0" encoding="UTF-8"?>
<bpmn:definitions xmlns:bpmn="http://www.omg.org/spec/BPMN/20100524/MODEL"
    xmlns:camunda="http://camunda.org/schema/1.0/bpmn" targetNamespace="urn:test" id="d">
  {errors}
  <bpmn:process id="{key}" isExecutable="true" camunda:historyTimeToLive="1"{tag}>
    <bpmn:startEvent id="start"/>
    {nodes}
    <bpmn:endEvent id="end"/>
    {flows}
  </bpmn:process>
</bpmn:definitions>"""


def process_xml(
    key: str,
    topics: Sequence[str],
    *,
    error_codes: Sequence[str] = (),
    properties: Mapping[str, str] | None = None,
    priority: str | None = None,
    version_tag: str | None = None,
    copies: int = 1,
) -> str:
    """A linear process, one external task per topic (ids task-1, task-2 ...).  Each error code is
    caught at every task by a boundary event that leads to an end event `caught-<code>-<n>`.
    With `copies` each task is a parallel multi-instance: so many external tasks at once.
    """
    nodes, flows, last = [], [], "start"
    loop = (
        "<bpmn:multiInstanceLoopCharacteristics>"
        f"<bpmn:loopCardinality>{copies}</bpmn:loopCardinality>"
        "</bpmn:multiInstanceLoopCharacteristics>"
    )
    extension = "".join(
        f"<camunda:property name={quoteattr(n)} value={quoteattr(v)}/>"
        for n, v in (properties or {}).items()
    )
    for number, topic in enumerate(topics, 1):
        task = f"task-{number}"
        priority_xml = f' camunda:taskPriority="{priority}"' if priority else ""
        nodes.append(
            f'<bpmn:serviceTask id="{task}" camunda:type="external"{priority_xml} '
            f"camunda:topic={quoteattr(topic)}><bpmn:extensionElements><camunda:properties>"
            f"{extension}</camunda:properties></bpmn:extensionElements>"
            f"{loop if copies > 1 else ''}</bpmn:serviceTask>"
        )
        flows.append((last, task))
        last = task
        for code in error_codes:
            nodes.append(
                f'<bpmn:boundaryEvent id="on-{code}-{number}" attachedToRef="{task}">'
                f'<bpmn:errorEventDefinition id="def-{code}-{number}" errorRef="error-{code}"/>'
                f'</bpmn:boundaryEvent><bpmn:endEvent id="caught-{code}-{number}"/>'
            )
            flows.append((f"on-{code}-{number}", f"caught-{code}-{number}"))
    flows.append((last, "end"))
    return _PROCESS.format(
        key=escape(key),
        tag=f" camunda:versionTag={quoteattr(version_tag)}" if version_tag else "",
        errors="".join(
            f'<bpmn:error id="error-{c}" name="{c}" errorCode="{c}"/>' for c in error_codes
        ),
        nodes="".join(nodes),
        flows="".join(
            f'<bpmn:sequenceFlow id="f{n}" sourceRef="{a}" targetRef="{b}"/>'
            for n, (a, b) in enumerate(flows)
        ),
    )


def unique(name: str) -> str:
    """A name that no other test uses: the engine is shared by all of them."""
    return f"{name}-{uuid.uuid4().hex[:8]}"


class EngineRest:
    """The REST API of an engine, as a test sees it.  Every call raises on an error status."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._session = requests.Session()

    def call(self, method: str, path: str, json: Any = None, **params: Any) -> Any:
        answer = self._session.request(
            method, self.url + path, json=json, params=params, timeout=30
        )
        assert answer.ok, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def deploy(self, xml: str, tenant: str | None = None) -> None:
        answer = self._session.post(
            f"{self.url}/deployment/create",
            data={"deployment-name": "test", **({"tenant-id": tenant} if tenant else {})},
            files={"process": ("process.bpmn", xml.encode())},
            timeout=30,
        )
        assert answer.ok, answer.text

    def deploy_topics(
        self, *topics: str, key: str | None = None, tenant: str | None = None, **options: Any
    ) -> str:
        """Deploy a linear process over the topics; returns its key."""
        key = key or unique("process")
        self.deploy(process_xml(key, topics, **options), tenant)
        return key

    def start(
        self,
        key: str,
        variables: Mapping[str, Any] | None = None,
        business_key: str | None = None,
        tenant: str | None = None,
    ) -> str:
        """Start an instance; variables as the engine's own `{"value":..., "type":...}`."""
        body = {"variables": dict(variables or {}), "businessKey": business_key}
        of_tenant = f"/tenant-id/{tenant}" if tenant else ""
        path = f"/process-definition/key/{key}{of_tenant}/start"
        return str(self.call("POST", path, body)["id"])

    def start_many(self, key: str, count: int) -> list[str]:
        return [self.start(key, {"n": {"value": n, "type": "Integer"}}) for n in range(count)]

    def finished(self, key: str) -> int:
        """How many instances of the process have ended (not deleted)."""
        path = "/history/process-instance/count"
        return int(self.call("GET", path, processDefinitionKey=key, completed="true")["count"])

    def running(self, key: str) -> int:
        return int(self.call("GET", "/process-instance/count", processDefinitionKey=key)["count"])

    def tasks(self, **filters: Any) -> list[dict[str, Any]]:
        """External tasks by the filters of `POST /external-task`."""
        found: list[dict[str, Any]] = self.call("POST", "/external-task?maxResults=5000", filters)
        return found

    def incidents(self, key: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.call("GET", "/incident", processDefinitionKeyIn=key)
        return found

    def ended_at(self, instance: str) -> str | None:
        """The id of the end event that the instance reached; None while it runs."""
        events = self.call(
            "GET", "/history/activity-instance", processInstanceId=instance, finished="true"
        )
        ends = [e["activityId"] for e in events if e["activityType"] == "noneEndEvent"]
        return ends[0] if ends else None

    def history_variables(self, instance: str) -> dict[str, Any]:
        """The variables of an instance, running or ended: name -> {"value", "type"}."""
        found = self.call(
            "GET",
            "/history/variable-instance",
            processInstanceId=instance,
            deserializeValues="false",
        )
        return {v["name"]: {"value": v["value"], "type": v["type"]} for v in found}

    def history_variable(self, instance: str, name: str) -> dict[str, Any]:
        """One variable of an instance, running or ended, with its `id`, `valueInfo` and scope."""
        found = self.call(
            "GET",
            "/history/variable-instance",
            processInstanceId=instance,
            variableName=name,
            deserializeValues="false",
        )
        assert len(found) == 1, f"{name}: {found}"
        variable: dict[str, Any] = found[0]
        return variable

    def history_file(self, variable_id: str) -> bytes:
        """The content of a File variable."""
        path = f"{self.url}/history/variable-instance/{variable_id}/data"
        return self._session.get(path, timeout=30).content

    def error_details(self, task_id: str) -> str:
        """The full text of a task's last failure."""
        return self._session.get(
            f"{self.url}/external-task/{task_id}/errorDetails", timeout=30
        ).text

    def suspend(self, instance: str, suspended: bool) -> None:
        self.call("PUT", f"/process-instance/{instance}/suspended", {"suspended": suspended})

    def delete(self, instance: str) -> None:
        self.call("DELETE", f"/process-instance/{instance}", skipCustomListeners="true")

    def clean(self, key: str) -> None:
        """Delete every running instance of a process."""
        for instance in self.call("GET", "/process-instance", processDefinitionKey=key):
            self.delete(instance["id"])
