"""Faults on demand and the log of calls.  Knows when to strike; touches no engine state.

hold = engine.faults.add("complete", when="after", times=1, action=Hold())
engine.faults.add("extendLock", when="before", times=2, action=Answer(503))
engine.faults.add("fetchAndLock", when="response", action=Drop())
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

When = Literal["before", "after", "response", "idle"]
_MOMENTS = ("before", "after", "response", "idle")
_LOG_LENGTH = 100_000


@dataclass(frozen=True)
class Drop:
    """Close the connection without (the rest of) an answer."""


@dataclass(frozen=True)
class Answer:
    """Answer this instead; `body` is sent as JSON, or as it is when it is a string."""

    status: int
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Hold:
    """Stop there until `release()`, then go on; `limit` in seconds bounds a forgotten one.

    `reached` is set when a request stands at the fault, so a test can wait for it.
    """

    limit: float = 60.0
    reached: threading.Event = field(default_factory=threading.Event)
    _released: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        """Let every request that stands or will stand here go on."""
        self._released.set()

    def stand(self) -> None:
        """Wait for the release; called by the engine's own thread."""
        self.reached.set()
        self._released.wait(self.limit)


Action = Drop | Answer | Hold
AnyAction = TypeVar("AnyAction", Drop, Answer, Hold)


@dataclass
class _Fault:
    verb: str
    when: When
    action: Action
    left: int | None
    task_id: str | None

    def meets(self, verb: str, when: When, task_id: str | None) -> bool:
        return (
            self.left != 0
            and self.when == when
            and self.verb in {verb, "*"}
            and self.task_id in {None, task_id}
        )


class Faults:
    """Faults waiting to strike, oldest first; one strikes per request and moment."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._faults: list[_Fault] = []

    def add(
        self,
        verb: str,
        *,
        when: When,
        action: AnyAction,
        times: int | None = 1,
        task_id: str | None = None,
    ) -> AnyAction:
        """Let `action` strike the next `times` calls of `verb` (None: all; verb `"*"`: any).

        `before`: nothing has happened in the engine yet.  `after`: it is committed, no byte of
        the answer is out.  `response`: half of the answer's bytes are out (not with Answer).
        `idle`: the whole answer is out and the connection waits for the next request (Drop only).
        Returns the action, so a Hold can be kept.  Raises ValueError for what cannot be.
        """
        if when not in _MOMENTS:
            raise ValueError(f"when={when!r}: give one of {', '.join(_MOMENTS)}")
        if (when == "response" and isinstance(action, Answer)) or (
            when == "idle" and not isinstance(action, Drop)
        ):
            raise ValueError(f"{type(action).__name__} cannot strike at when={when!r}")
        with self._guard:
            self._faults.append(_Fault(verb, when, action, times, task_id))
        return action

    def clear(self) -> None:
        """Forget every fault and release every Hold."""
        with self._guard:
            forgotten, self._faults = self._faults, []
        for fault in forgotten:
            if isinstance(fault.action, Hold):
                fault.action.release()

    def strike(self, verb: str, when: When, task_id: str | None) -> Action | None:
        """The action due at this moment of this call, counted down, or None."""
        if not self._faults:
            return None
        with self._guard:
            for fault in self._faults:
                if fault.meets(verb, when, task_id):
                    if fault.left is not None:
                        fault.left -= 1
                    return fault.action
        return None


@dataclass(frozen=True, slots=True)
class Call:
    """One request: `status` is None when no (whole) answer was sent; `body` is the parsed JSON."""

    verb: str
    task_id: str | None
    status: int | None
    method: str
    path: str
    body: Any
    at_ms: int


class CallLog:
    """The latest 100,000 calls, each there before its answer is."""

    def __init__(self) -> None:
        self._calls: deque[Call] = deque(maxlen=_LOG_LENGTH)

    def record(self, call: Call) -> None:
        """Append a finished call."""
        self._calls.append(call)

    def clear(self) -> None:
        """Forget all calls."""
        self._calls.clear()

    def of(self, verb: str | None = None, task_id: str | None = None) -> tuple[Call, ...]:
        """The calls so far of `verb` and for `task_id`, each None meaning any."""
        return tuple(
            call
            for call in self._calls.copy()
            if verb in {None, call.verb} and task_id in {None, call.task_id}
        )
