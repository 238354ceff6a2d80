"""All state of the simulated engine behind one lock, and the walk along the sequence flows.

A change is prepared on copies and committed whole or not at all, as an engine transaction is.
Knows nothing of HTTP, locks of workers or polls.
"""

import threading
import uuid
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace

from bridge.simulated_engine.bpmn import Node, variable_of
from bridge.simulated_engine.clock import Clock
from bridge.simulated_engine.errors import engine_failure
from bridge.simulated_engine.state import Definition, Incident, Instance, LogEntry, Task, Visit
from bridge.simulated_engine.values import Variable

_ENDED_KEPT = 50_000
_LOG_KEPT = 200_000


def new_id() -> str:
    """A fresh id in the engine's form."""
    return str(uuid.uuid4())


@dataclass
class Change:
    """What one command will commit for one process instance."""

    instance: Instance
    put: dict[str, Task] = field(default_factory=dict)
    removed: list[Task] = field(default_factory=list)
    log: list[LogEntry] = field(default_factory=list)
    visits: dict[str, Visit] = field(default_factory=dict)
    opened: list[Incident] = field(default_factory=list)
    resolved: list[str] = field(default_factory=list)


class Store:
    """Definitions, instances, tasks, incidents and history; hold `lock` around every use."""

    def __init__(self, clock: Clock) -> None:
        self.lock = threading.RLock()
        self.clock = clock
        self.definitions: dict[str, Definition] = {}
        self.instances: dict[str, Instance] = {}
        self.tasks: dict[str, Task] = {}
        self.by_topic: dict[str, dict[str, None]] = {}
        self.incidents: dict[str, Incident] = {}
        self.visits: dict[str, dict[str, Visit]] = {}
        self.log: deque[LogEntry] = deque(maxlen=_LOG_KEPT)
        self._ended: deque[str] = deque()
        self._number = 0

    def running(self, instance_id: str) -> Instance | None:
        """The instance, unless unknown or ended."""
        instance = self.instances.get(instance_id)
        return instance if instance and instance.end_ms is None else None

    def tasks_of(self, topic: str) -> Iterator[Task]:
        """The tasks of a topic, oldest first."""
        return (self.tasks[task_id] for task_id in self.by_topic.get(topic, ()))

    def begin(self, instance: Instance) -> Change:
        """An empty change of this instance."""
        return Change(instance)

    def set_variables(self, change: Change, variables: Mapping[str, Variable], scope: str) -> None:
        """Set where the name exists on execution `scope`, else on the process instance."""
        local = change.instance.local.get(scope, {})
        here = {name: value for name, value in variables.items() if name in local}
        above = {name: value for name, value in variables.items() if name not in local}
        self.set_local(change, here, scope)
        for name, value in above.items():
            known = change.instance.variables.get(name)
            if known is not None and known.transient != value.transient:
                raise engine_failure(
                    f"ENGINE-17006 Cannot set transient variable with name {name} to "
                    "non-transient variable and vice versa."
                )
        merged = {**change.instance.variables, **above}
        change.instance = replace(change.instance, variables=merged)

    def set_local(self, change: Change, variables: Mapping[str, Variable], scope: str) -> None:
        """Set on the execution `scope` itself."""
        merged = {**change.instance.local.get(scope, {}), **variables}
        local = {**change.instance.local, scope: merged}
        change.instance = replace(change.instance, local=local)

    def enter(self, change: Change, node_id: str) -> None:
        """Move a token into the node and on, until it waits at external tasks or ends."""
        node = change.instance.definition.process.nodes[node_id]
        if node.kind == "parallelGateway" and not self._joined(change, node):
            return
        activity_instance_id = f"{node.id}:{new_id()}"
        now_ms = self.clock.now_ms()
        visit = Visit(activity_instance_id, node, change.instance, now_ms)
        if node.topic is not None:
            change.visits[visit.id] = visit
            self._create_task(change, node, activity_instance_id)
            return
        change.visits[visit.id] = replace(visit, end_ms=now_ms)
        for following in node.outgoing:
            self.enter(change, following)

    def leave(self, change: Change, task: Task, kind: str) -> None:
        """Take the task away; `kind` names the history row: success, deletion, or none."""
        scope = change.instance.local.get(task.execution_id, {})
        outputs = {
            name: self._value(change, text, scope)
            for name, text in (task.node.outputs or {}).items()
            if kind == "success"
        }
        local = {k: v for k, v in change.instance.local.items() if k != task.execution_id}
        merged = {**change.instance.variables, **outputs}
        change.instance = replace(change.instance, local=local, variables=merged)
        change.removed.append(task)
        change.resolved.append(task.id)
        change.log.append(LogEntry(new_id(), kind, task, self.clock.now_ms()))
        visit = self.visits[task.instance_id][task.activity_instance_id]
        ended = replace(visit, end_ms=self.clock.now_ms(), canceled=kind != "success")
        change.visits[visit.id] = ended

    def commit(self, change: Change) -> Instance:
        """Make the change true; the instance ends when no task of it is left."""
        for task in change.removed:
            del self.tasks[task.id]
            del self.by_topic[task.topic][task.id]
        for task in change.put.values():
            self.tasks[task.id] = task
            self.by_topic.setdefault(task.topic, {})[task.id] = None
        for task_id in change.resolved:
            self.incidents.pop(task_id, None)
        for incident in change.opened:
            self.incidents[incident.task.id] = incident
        self.log.extend(change.log)
        self.visits.setdefault(change.instance.id, {}).update(change.visits)
        self.instances[change.instance.id] = self._settled(change)
        return self.instances[change.instance.id]

    def _settled(self, change: Change) -> Instance:
        instance = change.instance
        kept = {k: v for k, v in instance.variables.items() if not v.transient}
        visits = self.visits[instance.id].values()
        if any(visit.end_ms is None for visit in visits) or any(instance.joined.values()):
            return replace(instance, variables=kept)
        self._ended.append(instance.id)
        if len(self._ended) > _ENDED_KEPT:
            oldest = self._ended.popleft()
            del self.instances[oldest], self.visits[oldest]
        return replace(
            instance,
            variables=kept,
            end_ms=self.clock.now_ms(),
            end_state=instance.end_state or "COMPLETED",
        )

    def _joined(self, change: Change, node: Node) -> bool:
        arrived = change.instance.joined.get(node.id, 0) + 1
        whole = arrived >= node.incoming
        joined = {**change.instance.joined, node.id: 0 if whole else arrived}
        change.instance = replace(change.instance, joined=joined)
        return whole

    def _create_task(self, change: Change, node: Node, activity_instance_id: str) -> None:
        execution_id, instance = new_id(), change.instance
        inputs = {n: self._value(change, t, {}) for n, t in (node.inputs or {}).items()}
        if inputs:
            self.set_local(change, inputs, execution_id)
        scope = change.instance.local.get(execution_id, {})
        topic = self._value(change, node.topic or "", scope).value
        priority = self._value(change, node.priority or "0", scope).value
        self._number += 1
        task = Task(
            id=new_id(),
            number=self._number,
            instance_id=instance.id,
            definition=instance.definition,
            node=node,
            topic=str(topic),
            priority=int(priority),
            execution_id=execution_id,
            activity_instance_id=activity_instance_id,
            tenant_id=instance.tenant_id,
            business_key=instance.business_key,
            create_ms=self.clock.now_ms(),
        )
        change.put[task.id] = task
        change.log.append(LogEntry(new_id(), "creation", task, task.create_ms))

    def _value(self, change: Change, text: str, scope: Mapping[str, Variable]) -> Variable:
        name = variable_of(text)
        if name is None:
            return Variable("String", text)
        found = scope.get(name) or change.instance.variables.get(name)
        if found is None:
            raise engine_failure(
                f"Unknown property used in expression: {text}. "
                f"Cause: Cannot resolve identifier '{name}'"
            )
        return found
