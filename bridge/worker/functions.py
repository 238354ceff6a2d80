"""From a function to an outcome: variables by parameter name, results and exceptions as answers.
Pure: knows no broker.
"""

from __future__ import annotations

import inspect
import json
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, NamedTuple, NotRequired

from pydantic import TypeAdapter, ValidationError
from pydantic_core import to_jsonable_python
from typing_extensions import TypedDict

Variables = Mapping[str, Any]


class BpmnError(Exception):
    """Raise it for a business error: the boundary event that catches `code` is taken.  Raises
    ValueError without a code, which the engine would refuse.
    """

    def __init__(self, code: str, message: str = "", variables: Variables | None = None) -> None:
        if as_json(code) in (None, ""):
            raise ValueError("BpmnError needs a code: the one that a boundary event catches")
        super().__init__(message or code)
        self.code, self.variables = code, variables or {}


class Retry(Exception):
    """Raise it for "not now": an attempt less, and the next one `after` so much time (a number:
    seconds), without it after the topic's own pause.
    """

    def __init__(self, message: str, after: timedelta | float | None = None) -> None:
        super().__init__(message)
        self.after_ms = None if after is None else max(0, milliseconds(after))


class Outcome(NamedTuple):
    """An answer in the words of the contract: header `outcome` and the body beside it."""

    outcome: str
    body: dict[str, Any]


@dataclass(frozen=True)
class Task:
    """The task of a function that runs: what a parameter named `task`, or of this type, gets.
    `headers` are the message's: `taskId`, `retries`, `businessKey`, `processInstanceId` and more.
    """

    topic: str
    headers: Mapping[str, Any]
    variables: Variables = field(repr=False)
    _say: Callable[[Outcome], None] = field(repr=False)
    _is_gone: Callable[[], bool] = field(repr=False)

    def progress(
        self, variables: Variables | None = None, *, for_: timedelta | float = 600
    ) -> None:
        """Say "still working", at once and from any thread, at least once within the topic's
        `deadline`: lock (`for_` or its lease, the longer) and deadline begin anew, and `variables`
        are set on the process instance.  Raises TypeError or ValueError for what is no JSON.

        `for_` is also the time until the next call: where RabbitMQ's consumer timeout would end in
        it and take the message back, the message is acknowledged.  From then on lock and deadline
        guard the task: if this process is killed, the task fails by the topic's policy once the
        deadline has passed.  Until then another worker gets it at once.
        """
        body = {"newDuration": max(1, milliseconds(for_)), "variables": variables or {}}
        self._say(Outcome("extendLock", as_json(body)))

    def is_gone(self) -> bool:
        """Whether the bridge said that nobody needs this task any more: long work may end early."""
        return self._is_gone()


class _WrongVariables(Exception):
    """Another attempt would meet the same."""


class Handler:
    """A topic's function and what it takes.  Raises TypeError, or an error of pydantic's, for a
    parameter that no variable could be given to, and for a type that only a type checker knows.
    """

    def __init__(self, topic: str, queue: str, function: Callable[..., Any]) -> None:
        self.topic, self.queue, self.function = topic, queue, function
        self._tasks: list[str] = []
        try:
            self._check: TypeAdapter[Any] = TypeAdapter(TypedDict("Variables", self._taken()))  # type: ignore[operator]
            self._check.rebuild(raise_errors=True)
        except NameError as error:
            raise TypeError(
                f"{topic}: type {error.name!r} is not known when the program runs: have it at the"
                " top of the function's module, not under TYPE_CHECKING, and name it without quotes"
            ) from error

    def _taken(self) -> dict[str, Any]:
        taken: dict[str, Any] = {}
        for name, parameter in inspect.signature(self.function, eval_str=True).parameters.items():
            kind = Any if parameter.annotation is parameter.empty else parameter.annotation
            if parameter.kind not in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                raise TypeError(
                    f"{self.topic}: parameter {name} has no name that a variable could have"
                )
            if name == "task" or kind is Task:
                self._tasks.append(name)
            else:
                taken[name] = kind if parameter.default is parameter.empty else NotRequired[kind]
        return taken

    def attempt(self, make_task: Callable[[], Task], finish: Callable[[Any], Any]) -> Outcome:
        """Call the function; whatever becomes of it is an outcome.  `finish` awaits a coroutine."""
        try:
            return self._outcome(make_task(), finish)
        except _WrongVariables as error:
            return Outcome("failure", {"errorMessage": str(error), "retries": 0})
        except BaseException as error:  # noqa: BLE001 (SystemExit would leave the task unanswered)
            text = traceback.format_exception_only(error)[0].strip()
            details = "".join(traceback.format_exception(error))
            return Outcome("failure", {"errorMessage": text, "errorDetails": details})

    def _outcome(self, task: Task, finish: Callable[[Any], Any]) -> Outcome:
        try:
            result = self.function(**self._arguments(task))
            result = finish(_contained(result)) if inspect.isawaitable(result) else result
            variables = as_json({} if result is None else result)
            if not isinstance(variables, dict):
                raise TypeError(f"a {type(result).__name__} is returned, not a dict of variables")
            return Outcome("complete", {"variables": variables})
        except BpmnError as error:
            said = {"errorCode": str(as_json(error.code)), "errorMessage": str(error)}
            return Outcome("bpmnError", {**said, "variables": as_json(error.variables)})
        except Retry as error:
            pause = {} if error.after_ms is None else {"retryTimeout": error.after_ms}
            return Outcome("failure", {"errorMessage": str(error), **pause})

    def _arguments(self, task: Task) -> dict[str, Any]:
        try:
            found: dict[str, Any] = self._check.validate_python(task.variables)
        except ValidationError as error:
            faults = (
                f"variable {'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
            raise _WrongVariables("; ".join(faults)) from None
        return found | dict.fromkeys(self._tasks, task)


def variables_of(body: bytes) -> dict[str, Any]:
    """The variables of a task message, of a topic with `body = "task"` or `"variables"`."""
    try:
        parsed = json.loads(body)
    except ValueError:
        parsed = None
    if not isinstance(parsed, dict):
        raise _WrongVariables("the body of the message is no JSON object")
    inner = parsed.get("variables")  # `taskId` may be the name of a process variable
    return inner if "taskId" in parsed and isinstance(inner, dict) else parsed


def as_json(value: Any) -> Any:
    """The value as JSON carries it.  Raises TypeError or ValueError where it cannot."""
    text = json.dumps(value, default=to_jsonable_python, allow_nan=False, ensure_ascii=False)
    return json.loads(text.encode())  # half a character raises here


def milliseconds(time: timedelta | float) -> int:
    """A number is seconds."""
    return round((time.total_seconds() if isinstance(time, timedelta) else time) * 1000)


async def _contained(awaitable: Any) -> Any:
    """An exit that reached the event loop would end it, and every other task with it."""
    try:
        return await awaitable
    except (SystemExit, KeyboardInterrupt) as error:
        raise RuntimeError(f"{type(error).__name__}: {error}") from error
