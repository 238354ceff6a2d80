"""Variables of a process instance or of one task's execution, read and written from outside."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from bridge.simulated_engine.body import Body
from bridge.simulated_engine.errors import engine_failure, not_there, wrapped
from bridge.simulated_engine.state import Instance
from bridge.simulated_engine.store import Store
from bridge.simulated_engine.values import Variable, read_variables


class Scope:
    """`/process-instance/{id}/variables` or, where `local`, `/execution/{id}/localVariables`.

    As in the engine, the id of an execution is as good as the instance's id, and is then the
    scope at which the search for a variable begins.
    """

    def __init__(self, store: Store, *, local: bool) -> None:
        self._store = store
        self._local = local
        self._kind = "execution" if local else "process instance"

    def visible(self, execution_id: str) -> Mapping[str, Variable]:
        """The variables seen from there; where `local`, those of that very scope."""
        with self._store.lock:
            return self._visible(execution_id)

    def one(self, execution_id: str, name: str) -> Variable:
        """One variable, or 404."""
        problem = f"Cannot get {self._kind} variable {name}"
        with wrapped(problem, problem):
            found = self.visible(execution_id).get(name)
        if found is None:
            raise not_there(f"{self._kind} variable with name {name} does not exist")
        return found

    def put(self, execution_id: str, name: str, body: Body) -> None:
        """Set one variable from its `value`, `type` and `valueInfo`."""
        problem = f"Cannot put {self._kind} variable {name}"
        with wrapped(problem, problem):
            self._write(execution_id, {name: body.members}, ())

    def write(self, execution_id: str, body: Body) -> None:
        """Apply `modifications` and `deletions`."""
        problem = f"Cannot modify variables for {self._kind}"
        with wrapped(problem, f"{problem} {execution_id}"):
            changed, deleted = body.mapping("modifications"), body.texts("deletions")
            self._write(execution_id, changed or {}, deleted or ())

    def _write(
        self, execution_id: str, changed: Mapping[str, Any], deleted: tuple[str, ...]
    ) -> None:
        variables = read_variables(changed)
        with self._store.lock:
            instance = self._instance_of(execution_id)
            change = self._store.begin(instance)
            if self._local and execution_id != instance.id:
                self._store.set_local(change, variables, execution_id)
            else:
                self._store.set_variables(change, variables, execution_id)
            kept = {n: v for n, v in change.instance.variables.items() if n not in deleted}
            change.instance = replace(change.instance, variables=kept)
            self._store.commit(change)

    def _visible(self, execution_id: str) -> Mapping[str, Variable]:
        instance = self._instance_of(execution_id)
        own = instance.local.get(execution_id, {})
        if self._local and execution_id != instance.id:
            return own
        return {**instance.variables, **own}

    def _instance_of(self, execution_id: str) -> Instance:
        instance = self._store.running(execution_id)
        if instance is not None:
            return instance
        for task in self._store.tasks.values():
            if task.execution_id == execution_id:
                return self._store.instances[task.instance_id]
        told = f"execution {execution_id} doesn't exist: execution is null"
        raise engine_failure(told, "NullValueException")
