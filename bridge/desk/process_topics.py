"""The external tasks of a process model: which activity has which topic.  No I/O."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

# As the engines accept them: Camunda 7 and CIB seven the first and last, Operaton the first two.
_NAMESPACES = (
    "http://camunda.org/schema/1.0/bpmn",
    "http://operaton.org/schema/1.0/bpmn",
    "http://activiti.org/bpmn",
)
ANY_ERROR = "any"


@dataclass(frozen=True, slots=True)
class Activity:
    """One activity whose work is an external task.  `error_codes` are those that its boundary
    events catch, ANY_ERROR for one that names none; `topic` may be an expression.
    """

    topic: str
    activity_id: str
    name: str
    error_codes: tuple[str, ...]

    @property
    def is_expression(self) -> bool:
        """Whether the engine works the topic out when the task begins."""
        return "${" in self.topic or "#{" in self.topic


def activities(xml: str) -> list[Activity]:
    """The activities in the order of the model; empty where it cannot be read."""
    try:
        root = ET.fromstring(xml)  # noqa: S314
    except ET.ParseError:
        return []
    codes = _caught_codes(root)
    return [
        Activity(topic, owner.get("id", ""), owner.get("name", ""), codes[owner.get("id", "")])
        for owner, topic in _external(root, None)
    ]


def _external(element: ET.Element, owner: ET.Element | None) -> Iterator[tuple[ET.Element, str]]:
    """A message event says it in the definition inside it, which has no id to speak of."""
    inside = element.tag.endswith("}messageEventDefinition") and owner is not None
    subject = owner if inside and owner is not None else element
    topic = _extension(element, "topic")
    if (_extension(element, "type") or "").lower() == "external" and topic:
        yield subject, topic
    for child in element:
        yield from _external(child, element)


def _extension(element: ET.Element, name: str) -> str | None:
    for namespace in _NAMESPACES:
        if (value := element.get(f"{{{namespace}}}{name}")) is not None:
            return value
    return None


def _caught_codes(root: ET.Element) -> defaultdict[str, tuple[str, ...]]:
    named = {e.get("id", ""): e.get("errorCode") or "" for e in root.iterfind(".//{*}error")}
    found: defaultdict[str, tuple[str, ...]] = defaultdict(tuple)
    for event in root.iterfind(".//{*}boundaryEvent"):
        for definition in event.iterfind("{*}errorEventDefinition"):
            code = named.get(definition.get("errorRef", ""), "") or ANY_ERROR
            found[event.get("attachedToRef", "")] += (code,)
    return found
