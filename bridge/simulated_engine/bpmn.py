"""BPMN files as the simulated engine understands them: paths of external tasks.

Reads start, external tasks, boundary errors, parallel gateways and ends along the sequence flows.
Ignores timers on boundaries, asyncBefore and the diagram.  Refuses, with one message naming the
element, whatever it would otherwise run wrongly.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn
from xml.etree import ElementTree as Xml

from bridge.simulated_engine.errors import RestError, engine_failure

_BPMN = "{http://www.omg.org/spec/BPMN/20100524/MODEL}"
_EXTENSIONS = ("{http://camunda.org/schema/1.0/bpmn}", "{http://operaton.org/schema/1.0/bpmn}")
_TASKS = {"serviceTask", "sendTask", "businessRuleTask"}
_PASSED = {"startEvent", "endEvent", "task", "manualTask", "intermediateThrowEvent"}
_IGNORED = {
    "documentation",
    "extensionElements",
    "sequenceFlow",
    "textAnnotation",
    "association",
    "group",
    "laneSet",
    "dataObject",
    "dataObjectReference",
    "dataStoreReference",
    "property",
    "ioSpecification",
}
_DAYS = re.compile("[PD]")
_VARIABLE = re.compile(r"[$#]\{\s*(\w+)\s*\}")


@dataclass(frozen=True)
class Boundary:
    """A boundary error event: catches `error_code`, or every code when it is None."""

    id: str
    error_code: str | None
    code_variable: str | None
    message_variable: str | None


@dataclass(frozen=True)
class Node:
    """One flow node; `topic` is None for everything but an external task."""

    id: str
    kind: str
    name: str | None = None
    outgoing: tuple[str, ...] = ()
    incoming: int = 0
    topic: str | None = None
    priority: str | None = None
    properties: Mapping[str, str] | None = None
    inputs: Mapping[str, str] | None = None
    outputs: Mapping[str, str] | None = None
    boundaries: tuple[Boundary, ...] = ()

    @property
    def history_type(self) -> str:
        """The activity type in the history's words."""
        names = {"endEvent": "noneEndEvent", "boundaryEvent": "boundaryError"}
        return names.get(self.kind, self.kind)

    def catching(self, error_code: str) -> Boundary | None:
        """The boundary that catches this code: by its code first, else one that catches all."""
        exact = [b for b in self.boundaries if b.error_code == error_code]
        return next(iter(exact + [b for b in self.boundaries if b.error_code is None]), None)


@dataclass(frozen=True)
class Process:
    """An executable process of a BPMN file."""

    key: str
    name: str | None
    version_tag: str | None
    category: str | None
    history_days: int | None
    start: str
    nodes: Mapping[str, Node]


def variable_of(expression: str) -> str | None:
    """The variable's name when the text is `${name}`; None for a constant."""
    found = _VARIABLE.fullmatch(expression.strip())
    return found.group(1) if found else None


def read_bpmn(text: bytes, resource: str) -> list[Process]:
    """The executable processes of a BPMN file; raises the engine's 400 ParseException."""
    if b"<!DOCTYPE" in text:
        _refuse(resource, "DOCTYPE is disallowed")
    try:
        root = Xml.fromstring(text)  # noqa: S314 - no DOCTYPE, so no entities to expand
    except Xml.ParseError as error:
        raise engine_failure(f"ENGINE-09003 Could not parse '{resource}'. {error}") from error
    errors = {e.get("id", ""): e.get("errorCode") for e in root.findall(f"{_BPMN}error")}
    return [
        _Reader(element, resource, errors).process(root.get("targetNamespace"))
        for element in root.findall(f"{_BPMN}process")
        if element.get("isExecutable") == "true"
    ]


def _refuse(resource: str, problem: str) -> NoReturn:
    raise RestError(
        400,
        "ParseException",
        f"ENGINE-09005 Could not parse BPMN process. Errors: \n* {problem} | resource {resource}",
        0,
    )


class _Reader:
    """Reads one process element."""

    def __init__(self, element: Xml.Element, resource: str, errors: dict[str, str | None]) -> None:
        self._process = element
        self._resource = resource
        self._errors = errors
        self._flows = {f.get("id"): f for f in element.findall(f"{_BPMN}sequenceFlow")}

    def process(self, category: str | None) -> Process:
        key, days = self._process.get("id", ""), _attribute(self._process, "historyTimeToLive")
        if not days:
            self._no("ENGINE-12018 History Time To Live (TTL) cannot be null")
        boundaries, nodes = self._boundaries(), {}
        for element in self._process:
            name = element.tag.removeprefix(_BPMN)
            if name == "boundaryEvent":
                nodes[element.get("id", "")] = self._node(element, name, ())
            elif name not in _IGNORED:
                attached = tuple(b for host, b in boundaries if host == element.get("id"))
                nodes[element.get("id", "")] = self._node(element, name, attached)
        starts = [node.id for node in nodes.values() if node.kind == "startEvent"]
        if len(starts) != 1:
            self._no(f"{len(starts)} start events where the simulated engine wants one")
        return Process(
            key,
            self._process.get("name"),
            _attribute(self._process, "versionTag"),
            category,
            int(_DAYS.sub("", days)) if _DAYS.sub("", days).isdigit() else None,
            starts[0],
            nodes,
        )

    def _node(self, element: Xml.Element, kind: str, boundaries: tuple[Boundary, ...]) -> Node:
        flows = self._flows.values()
        outgoing = [f for f in flows if f.get("sourceRef") == element.get("id")]
        for flow in outgoing:
            if flow.find(f"{_BPMN}conditionExpression") is not None:
                self._no("conditional sequence flow", flow)
        plain = Node(
            element.get("id", ""),
            kind,
            element.get("name"),
            tuple(f.get("targetRef", "") for f in outgoing),
            sum(f.get("targetRef") == element.get("id") for f in flows),
        )
        if kind in _TASKS and _attribute(element, "type") == "external":
            return self._external(element, plain, boundaries)
        definitions = [e for e in element if e.tag.endswith("EventDefinition")]
        single_path = kind.endswith("Gateway") and len(outgoing) == 1
        passed = (kind in _PASSED and not definitions) or single_path
        if not (passed or kind in {"boundaryEvent", "parallelGateway"}):
            self._no(f"{kind} is not supported by the simulated engine", element)
        self._check_extensions(element, {"properties"})
        return plain

    def _external(
        self, element: Xml.Element, plain: Node, boundaries: tuple[Boundary, ...]
    ) -> Node:
        topic = _attribute(element, "topic")
        if not topic:
            self._no(
                "External tasks must specify a 'topic' attribute in the camunda namespace", element
            )
        if element.find(f"{_BPMN}multiInstanceLoopCharacteristics") is not None:
            self._no("multi-instance is not supported by the simulated engine", element)
        self._check_extensions(element, {"properties", "inputOutput"})
        priority = _attribute(element, "taskPriority") or _attribute(self._process, "taskPriority")
        for expression in (topic, priority or "0"):
            self._check_expression(expression, element)
        if priority and not variable_of(priority) and not priority.lstrip("-").isdigit():
            self._no(
                f"Value '{priority}' for attribute 'taskPriority' is not a valid number", element
            )
        return Node(
            plain.id,
            plain.kind,
            plain.name,
            plain.outgoing,
            plain.incoming,
            topic,
            priority,
            {p.get("name", ""): p.get("value", "") for p in _extension(element, "property")},
            self._mapping(element, "inputParameter"),
            self._mapping(element, "outputParameter"),
            boundaries,
        )

    def _mapping(self, element: Xml.Element, name: str) -> dict[str, str]:
        mapping = {}
        for parameter in _extension(element, name):
            if len(parameter):
                self._no(f"{name} with list, map or script is not supported", element)
            mapping[parameter.get("name", "")] = (parameter.text or "").strip()
            self._check_expression(mapping[parameter.get("name", "")], element)
        return mapping

    def _boundaries(self) -> list[tuple[str | None, Boundary]]:
        found = []
        for event in self._process.findall(f"{_BPMN}boundaryEvent"):
            if event.find(f"{_BPMN}timerEventDefinition") is not None:
                continue
            definition = event.find(f"{_BPMN}errorEventDefinition")
            if definition is None:
                self._no("only error and timer boundary events are supported", event)
            reference = definition.get("errorRef")
            if reference is not None and reference not in self._errors:
                self._no(f"errorRef '{reference}' names no error of the file", event)
            boundary = Boundary(
                event.get("id", ""),
                self._errors[reference] if reference else None,
                _attribute(definition, "errorCodeVariable"),
                _attribute(definition, "errorMessageVariable"),
            )
            found.append((event.get("attachedToRef"), boundary))
        return found

    def _check_extensions(self, element: Xml.Element, known: set[str]) -> None:
        holder = element.find(f"{_BPMN}extensionElements")
        for child in holder if holder is not None else ():
            namespace, _, name = child.tag.rpartition("}")
            if namespace + "}" in _EXTENSIONS and name not in known:
                self._no(f"{name} is not supported by the simulated engine", element)

    def _check_expression(self, text: str, element: Xml.Element) -> None:
        if ("${" in text or "#{" in text) and variable_of(text) is None:
            self._no(f"expression {text} (only ${{variable}} is supported)", element)

    def _no(self, problem: str, element: Xml.Element | None = None) -> NoReturn:
        where = self._process if element is None else element
        name = where.tag.removeprefix(_BPMN)
        _refuse(self._resource, f"{problem} ({name} '{where.get('id')}')")


def _attribute(element: Xml.Element, name: str) -> str | None:
    return next((v for space in _EXTENSIONS if (v := element.get(space + name))), None)


def _extension(element: Xml.Element, name: str) -> Iterator[Xml.Element]:
    holder = element.find(f"{_BPMN}extensionElements")
    if holder is not None:
        for space in _EXTENSIONS:
            yield from holder.iter(space + name)
