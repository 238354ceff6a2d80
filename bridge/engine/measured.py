"""What a call to the engine is counted as: its verb and its outcome.  Knows no ids."""

from __future__ import annotations

from typing import Literal

from bridge.errors import (
    EngineBroken,
    EngineError,
    EngineMisconfigured,
    EngineUnauthorized,
    EngineUnavailable,
    TaskGone,
)

Outcome = Literal["ok", "gone", "refused", "unavailable", "failed"]

_VERBS = frozenset(
    {
        "fetchAndLock",
        "complete",
        "failure",
        "bpmnError",
        "extendLock",
        "lock",
        "unlock",
        "variables",
        "version",
        "xml",
    }
)
_QUERY = "external-task"


def verb_of(path: str, wait: float = 0.0) -> str:
    """The last word of a path where it is a verb of the API; `query` for a search of tasks, `read`
    for anything that is named by its id, `longPoll` for a call that waits for tasks.
    """
    if wait > 0:
        return "longPoll"
    last = path.partition("?")[0].rpartition("/")[2]
    if last in _VERBS:
        return last
    return "query" if last == _QUERY else "read"


def outcome_of(error: EngineError | None) -> Outcome:
    """`gone`: no such task; `unavailable`: no answer, or "later"; `failed`: what is wrong with the
    engine, the process or our access to it; `refused`: any other answer but yes, such as a lock
    that is not ours or a transaction that another one was faster than.
    """
    match error:
        case None:
            return "ok"
        case TaskGone():
            return "gone"
        case EngineUnavailable():
            return "unavailable"
        case EngineUnauthorized() | EngineMisconfigured() | EngineBroken():
            return "failed"
        case _:
            return "refused"
