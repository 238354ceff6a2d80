"""Programs that we start: on free loopback ports, with a log file each, ended by process id.

Knows nothing about what the programs do, and ends none that it did not start.
"""

import fcntl
import os
import random
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

POLL_S = 0.05
TAIL_LINES = 25
_given_ports: dict[int, int] = {}  # port -> the file that says so, locked while we live


class PartError(RuntimeError):
    """A part could not be started, reached or built. The message names the cure."""


class Program:
    """One started program. It has its own session, so Ctrl-C in a terminal does not reach it."""

    def __init__(
        self,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """None while it runs; the negative number of the signal that ended it."""
        return self._process.poll()

    def wait_until(self, ready: Callable[[], bool], *, limit_s: float) -> None:
        """Return once `ready()` is true. PartError when the program ends or the limit passes."""
        until = time.monotonic() + limit_s
        while not ready():
            if not self.running:
                self.fail(f"ended with exit code {self.exit_code} before it was ready")
            if time.monotonic() > until:
                self.kill()
                self.fail(f"was not ready within {limit_s:g} s")
            time.sleep(POLL_S)

    def stop(self, *, grace_s: float) -> None:
        """SIGTERM, and SIGKILL for what still runs after the grace. Harmless when it has ended."""
        self._process.terminate()
        try:
            self._process.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL. When this returns, the process is gone."""
        self._process.kill()
        self._process.wait()

    def fail(self, what: str) -> NoReturn:
        """Raise PartError with what happened and the end of the log."""
        raise PartError(f"{self.name} {what}. The end of {self.log}:\n{tail(self.log)}")


def tail(log: Path, lines: int = TAIL_LINES) -> str:
    """The last lines of a log, indented; says so when there is none."""
    return last_lines(log.read_text(errors="replace") if log.exists() else "", lines)


def last_lines(text: str, lines: int = TAIL_LINES) -> str:
    """The last lines of a text, indented; says so when there is none."""
    return "\n".join(f"    {line}" for line in text.splitlines()[-lines:]) or "    (empty)"


def free_port() -> int:
    """A loopback TCP port that nothing uses, given out to nobody else while this process lives.

    Taken below the range from which the system picks ports for outgoing connections, so that no
    connection can take it before the program does.
    """
    for port in random.sample(range(20_000, 32_000), 200):
        if port not in _given_ports and _reserve(port) and _can_listen(port):
            return port
    raise PartError("no free TCP port found on 127.0.0.1 between 20000 and 32000")


def _reserve(port: int) -> bool:
    """Say to other processes of this user, which look for ports too, that this one is taken: a
    program may listen on it only seconds later, or be down for a while.
    """
    directory = Path(tempfile.gettempdir(), f"external-task-bridge-ports-{os.getuid()}")
    directory.mkdir(exist_ok=True)
    file = os.open(directory / str(port), os.O_CREAT | os.O_WRONLY)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return False
    _given_ports[port] = file
    return True


def _can_listen(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def listens(port: int) -> bool:
    """Whether something accepts TCP connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
