"""What an engine was asked, read off its access log: the same clock for every contender.

The log costs the engine some microseconds a request.  Reads only; refuses nothing.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

PATTERN = "%{begin:msec}t %D %s %m %U"
# Tomcat's own settings, which Spring hands on.
PROPERTIES = {
    "server.tomcat.accesslog.enabled": "true",
    "server.tomcat.accesslog.pattern": PATTERN,
    "server.tomcat.accesslog.prefix": "access",
    "server.tomcat.accesslog.suffix": ".log",
    "server.tomcat.accesslog.rotate": "false",
    "server.tomcat.accesslog.buffered": "false",
}
LOCK_CALLS = ("extendLock", "lock")


@dataclass(frozen=True, slots=True)
class Call:
    """One request about external tasks: when it began (ms since the epoch), how long it took."""

    began: float
    took_ms: float
    status: int
    verb: str


def parse(line: str) -> Call | None:
    """The call of a line of the log; None where it is no call about external tasks."""
    began, took, status, _, path = line.split(" ", 4)
    if "/external-task" not in path:
        return None
    return Call(float(began), float(took) / 1000, int(status), path.rstrip("\n").rsplit("/", 1)[-1])


@dataclass
class Calls:
    """The calls that begin from now on; `read` takes in what has been written since.

    A poll of a client that is gone ends in somebody else's turn: it began before (`since`, ms).
    """

    log: Path
    offset: int
    since: float
    first_fetch: float | None = None
    last_complete: float | None = None
    counts: Counter[str] = field(default_factory=Counter)

    @classmethod
    def from_now(cls, log: Path, now: float | None = None) -> Calls:
        began = time.time() * 1000 if now is None else now
        return cls(log, log.stat().st_size if log.exists() else 0, began)

    @property
    def completed(self) -> int:
        return self.counts["complete"]

    @property
    def seconds(self) -> float:
        """From the beginning of the first fetch to the end of the last completion."""
        assert self.first_fetch is not None
        assert self.last_complete is not None
        return (self.last_complete - self.first_fetch) / 1000

    def read(self) -> Calls:
        for line in self._new_lines():
            call = parse(line)
            if call is not None and call.began >= self.since:
                self._take(call)
        return self

    def _take(self, call: Call) -> None:
        accepted = 200 <= call.status < 300
        self.counts[call.verb if accepted else f"{call.verb} {call.status}"] += 1
        ended = call.began + call.took_ms
        if call.verb == "fetchAndLock":
            self.first_fetch = min(self.first_fetch or call.began, call.began)
        elif call.verb == "complete" and accepted:
            self.last_complete = max(self.last_complete or ended, ended)

    def _new_lines(self) -> Iterator[str]:
        if not self.log.exists():
            return
        with self.log.open("rb") as log:
            log.seek(self.offset)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self.offset += len(whole)
        yield from whole.decode().splitlines()
