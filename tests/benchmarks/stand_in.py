"""The engine stand-in: a compiled server that is many times faster than the bridge.

Its tasks are made by `create`, and what happened to them is counted (`report`).  It keeps locks as
the engine does, as far as a bridge can see; it runs no process.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from deploy.local.engine import answers
from deploy.local.programs import Program, free_port
from tests.benchmarks import programs
from tests.benchmarks.calls import LOCK_CALLS


@dataclass(frozen=True)
class Report:
    """What has been counted since the last `reset`; times in seconds."""

    counts: Mapping[str, int]
    open: int
    polls_waiting: int
    most_polls_waiting: int
    seconds: float
    renewals: int
    between_renewals: float

    @property
    def completed(self) -> int:
        return self.counts.get("completed", 0)

    @property
    def lock_calls(self) -> int:
        return sum(self.counts.get(call, 0) for call in LOCK_CALLS)


class StandIn:
    """A running stand-in.  `url` is the base of its REST API."""

    def __init__(self, program: Program, url: str, control: str) -> None:
        self.pid = program.pid
        self.url = url
        self._control = control
        self._session = requests.Session()
        self._session.trust_env = False

    def create(self, topic: str, count: int, *, size: int = 0, rate: float = 0) -> None:
        """Make tasks of two variables, and a third one of `size` bytes; at once, or in the
        background so many a second.
        """
        order = {"topic": topic, "count": count, "bytes": size, "rate": rate}
        self._session.post(f"{self._control}/tasks", json=order, timeout=60).raise_for_status()

    def reset(self) -> None:
        """Forget the counts, not the tasks."""
        self._session.post(f"{self._control}/reset", timeout=10).raise_for_status()

    def report(self) -> Report:
        told = self._session.get(f"{self._control}/report", timeout=10).json()
        renewals = told["renewals"]
        return Report(
            counts=told["counts"],
            open=told["open"],
            polls_waiting=told["pollsWaiting"],
            most_polls_waiting=told["mostPollsWaiting"],
            seconds=(told["lastCompleteMs"] - told["firstFetchMs"]) / 1000,
            renewals=renewals,
            between_renewals=told["betweenRenewalsMs"] / 1000 / renewals if renewals else 0.0,
        )


@contextmanager
def stand_in(directory: Path, *, delay_ms: int = 0) -> Iterator[StandIn]:
    """A stand-in for the length of a `with` block; every call about a task takes `delay_ms`."""
    api, control = free_port(), free_port()
    words = [
        *programs.native(), "engine", "-listen", f"127.0.0.1:{api}",
        "-control", f"127.0.0.1:{control}", "-delay", f"{delay_ms}ms",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{api}/engine-rest"
    log = directory / f"stand-in-{api}.log"
    with programs.running("the engine stand-in", words, log=log, wait=False) as program:
        program.wait_until(lambda: answers(url), limit_s=programs.START_LIMIT_S)
        yield StandIn(program, url, f"http://127.0.0.1:{control}")
