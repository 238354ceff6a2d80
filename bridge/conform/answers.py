"""Cases that send a message and judge the answer.  The worker stays as it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.conform.bench import Bench
from bridge.conform.examples import ADDED, Example
from bridge.conform.tasks import Answer
from bridge.conform.verdict import Failed, NotTried
from bridge.messages import BpmnError, Complete, ExtendLock, Failure, Result, Unlock

_MOST_SHOWN = 60
_NAMES: dict[type[Result], str] = {
    Complete: "complete",
    BpmnError: "bpmnError",
    Failure: "failure",
    ExtendLock: "extendLock",
    Unlock: "unlock",
}
_CELERY_PERSISTENT = "Set result_persistent = True in the Celery application."


def success(bench: Bench) -> None:
    """The example of [success] completes."""
    _outcome(bench, "success", Complete)


def business_error(bench: Bench) -> None:
    """The example of [business_error] ends as a BPMN error."""
    _outcome(bench, "business_error", BpmnError)


def failure(bench: Bench) -> None:
    """The example of [failure] fails."""
    _outcome(bench, "failure", Failure)


def unicode(bench: Bench) -> None:
    """Texts of many scripts, beyond the basic plane too."""
    _variation(bench, "unicode")


def null(bench: Bench) -> None:
    """A variable without a value."""
    _variation(bench, "null")


def numbers(bench: Bench) -> None:
    """The largest and smallest numbers of each kind."""
    _variation(bench, "numbers")


def large_body(bench: Bench) -> None:
    """A megabyte."""
    _variation(bench, "large")


def duplicate(bench: Bench) -> None:
    """The same message twice: two answers of the same kind to the same task."""
    example = usual(bench)
    task_id = bench.queues.send(example.variables, copies=2)
    first, second = bench.answers([task_id, task_id])
    for answer in (first, second):
        judge(answer, _usual_kind(bench), example.expect)
    if type(first.result) is not type(second.result):
        raise Failed(f"first {_name(first.result)}, then {_name(second.result)}")


def correlation_id(bench: Bench) -> None:
    """Every answer so far named its task."""
    heard = _some(bench)
    refused = [answer.token_refused for answer in heard if answer.task_id is None]
    if refused:
        raise Failed(f"{len(refused)} of {len(heard)} answers: {refused[0]}")


def persistent(bench: Bench) -> None:
    """Every answer so far would have outlived a restart of the broker."""
    heard = _some(bench)
    transient = [answer for answer in heard if not answer.persistent]
    if not transient:
        return
    celery = bench.setup.topic.replies.profile == "celery"
    if celery and bench.setup.quorum_results:
        raise NotTried("Celery's results are transient, and the bridge's quorum queue keeps them")
    seen = f"{len(transient)} of {len(heard)} answers are transient"
    raise Failed(seen, _CELERY_PERSISTENT if celery else "")


def usual(bench: Bench) -> Example:
    """What is sent where a case is not about the content."""
    return bench.setup.examples.get("success", Example())


def judge(answer: Answer, kind: type[Result] | None, expect: Mapping[str, Any]) -> None:
    """Raises Failed where the answer cannot be read, is of another kind (None: any will do), or
    lacks a variable that is expected.
    """
    result = answer.result
    if result is None:
        if answer.dead:
            raise Failed(answer.refused)
        raise Failed(f"the bridge would park the answer: {answer.refused}")
    if kind is not None and not isinstance(result, kind):
        raise Failed(f"answered {_name(result)}, not {_NAMES[kind]}{_reason(result)}")
    _expected(result, expect)


def _outcome(bench: Bench, table: str, kind: type[Result]) -> None:
    example = bench.setup.examples.get(table)
    if example is None:
        raise NotTried(_no_example(bench, table))
    [answer] = bench.answers([bench.queues.send(example.variables)])
    judge(answer, kind, example.expect)


def _variation(bench: Bench, table: str) -> None:
    example = bench.setup.examples.get(table)
    shape = bench.setup.topic.shape
    if example is None:
        if shape.celery_task is not None or shape.body.startswith("variable:"):
            raise NotTried(f"{_no_example(bench, table)}, and the message has no room for more")
        base = usual(bench)
        example = Example({**base.variables, **ADDED[table]}, base.expect)
    [answer] = bench.answers([bench.queues.send(example.variables)])
    judge(answer, _usual_kind(bench), example.expect)


def _no_example(bench: Bench, table: str) -> str:
    where = "the examples" if bench.setup.examples else "a file given with --examples"
    return f"no [{table}] in {where}"


def _usual_kind(bench: Bench) -> type[Result] | None:
    """Without an example of a success nothing is known of what a worker makes of a task."""
    return Complete if "success" in bench.setup.examples else None


def _some(bench: Bench) -> list[Answer]:
    """The answers of the worker itself; RabbitMQ brings what it rejected."""
    if not any(not answer.dead for answer in bench.heard):
        bench.answers([bench.queues.send(usual(bench).variables)])
    return [answer for answer in bench.heard if not answer.dead]


def _expected(result: Result, expect: Mapping[str, Any]) -> None:
    variables: dict[str, Any] = {}
    if isinstance(result, Complete | Failure):
        variables = {**result.variables, **result.local_variables}
    elif isinstance(result, BpmnError):
        variables = dict(result.variables)
    for name, value in expect.items():
        if name not in variables:
            raise Failed(f"the answer has no variable {name!r}")
        if _bare(variables[name]) != value:
            raise Failed(f"variable {name!r} is {_short(variables[name])}, not {_short(value)}")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _bare(value: Any) -> Any:
    """A value that came with its type."""
    typed = isinstance(value, dict) and {"value", "type"} <= value.keys()
    return value["value"] if typed else value


def _name(result: Result | None) -> str:
    return "nothing readable" if result is None else _NAMES[type(result)]


def _reason(result: Result) -> str:
    text = result.error_message if isinstance(result, Failure | BpmnError) else None
    return f": {text}" if text else ""
