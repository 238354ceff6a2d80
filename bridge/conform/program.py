"""The worker as a process: start, stop, kill, and what it said last.  Understands none of it."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress

_LAST_BYTES = 2000
_LAST_LINES = 3
_KILL_SECONDS = 10


class Program:
    """A command in a process group of its own, of which a kill leaves nothing.

    `start` raises OSError where the command cannot be run.
    """

    def __init__(self, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self._command, self._environ = list(command), dict(environ)
        self._process: subprocess.Popen[bytes] | None = None
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 (closed with this object)
        self._killed = False

    @property
    def ran(self) -> bool:
        """Whether it was ever started."""
        return self._process is not None

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def code(self) -> int | None:
        """Its exit code, negative for the signal that ended it; None while it runs."""
        return None if self._process is None else self._process.poll()

    def start(self) -> None:
        """Start it again, its output empty."""
        output = self._output.fileno()
        os.ftruncate(output, 0)
        os.lseek(output, 0, os.SEEK_SET)  # the process begins to write where we are
        with _undisturbed():
            self._process = subprocess.Popen(  # noqa: S603 (the user's own command)
                self._command,
                env=self._environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            self._killed = False

    def terminate(self) -> None:
        """SIGTERM to the process alone, as `docker stop` and Kubernetes send it."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """SIGKILL to it and to all of its children; when this returns it is gone."""
        if self._process is None or self._killed:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_KILL_SECONDS)
        self._killed = True

    def close(self) -> None:
        """Kill it and forget its output."""
        self.kill()
        self._output.close()

    def last_words(self) -> str:
        """The end of its output in one line; empty where it said nothing."""
        size = os.fstat(self._output.fileno()).st_size
        text = os.pread(self._output.fileno(), _LAST_BYTES, max(0, size - _LAST_BYTES))
        lines = [line.strip() for line in text.decode(errors="replace").splitlines()]
        return " | ".join([line for line in lines if line][-_LAST_LINES:])


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals that would end the kit wait: half-way it would leave a process that nobody knows."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    waiting: list[int] = []
    ends = (signal.SIGTERM, signal.SIGINT)
    before = {end: signal.signal(end, lambda number, _: waiting.append(number)) for end in ends}
    try:
        yield
    finally:
        for end, handler in before.items():
            signal.signal(end, handler)
        for number in waiting:
            signal.raise_signal(number)
