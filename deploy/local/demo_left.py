"""What outlives the demo: written down, found again by a later command, ended.

Starts nothing.  Ends nothing that was not written down: a pid counts only with its start time.
"""

import json
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass

import psutil

from deploy.local.demo_files import LEFT

_GRACE_SECONDS = 15
_CHILD_GRACE_SECONDS = 3
_DOCKER_SECONDS = 60


@dataclass(frozen=True)
class Running:
    """A process, identified beyond the reuse of its pid."""

    name: str
    pid: int
    created: float
    """Start time as the operating system has it, seconds since the epoch; 0 if it had ended."""

    @classmethod
    def of(cls, name: str, pid: int) -> "Running":
        """The process with this pid as it runs now."""
        try:
            return cls(name, pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return cls(name, pid, 0.0)

    @classmethod
    def alive(cls, pid: int) -> bool:
        """Whether a process with this pid runs."""
        return cls.of("", pid).process() is not None

    def process(self) -> psutil.Process | None:
        """The process while it is alive, else None."""
        try:
            process = psutil.Process(self.pid)
            same = process.create_time() == self.created
            return process if same and process.status() != psutil.STATUS_ZOMBIE else None
        except psutil.NoSuchProcess:
            return None


@dataclass(frozen=True)
class Left:
    """Groups of processes in the order in which they are to end, and the ids of containers."""

    groups: tuple[tuple[Running, ...], ...] = ()
    containers: tuple[str, ...] = ()

    def names(self) -> str:
        """For people: every name once."""
        processes = (one.name for group in self.groups for one in group)
        return ", ".join(dict.fromkeys([*processes, *self.containers]))


def end(running: Iterable[Running]) -> list[str]:
    """End these processes all at once, then their children; returns the names of those killed."""
    heads = [(one.name, process) for one in running if (process := one.process())]
    children = [child for _, process in heads for child in _children(process)]
    killed = _stop([process for _, process in heads], _GRACE_SECONDS)
    _stop(children, _CHILD_GRACE_SECONDS)
    return [name for name, process in heads if process in killed]


def end_left(left: Left) -> None:
    """End all of it, one group after the other."""
    for group in left.groups:
        end(group)
    for container in left.containers:
        command = ["docker", "rm", "--force", "--volumes", container]
        subprocess.run(command, capture_output=True, timeout=_DOCKER_SECONDS, check=False)


def remember(left: Left) -> None:
    """Write it down for `left_running`."""
    draft = LEFT.with_suffix(".new")
    draft.write_text(json.dumps(asdict(left), indent=1) + "\n")
    draft.rename(LEFT)


def left_running() -> Left:
    """What was written down and still runs."""
    if not LEFT.exists():
        return Left()
    written = json.loads(LEFT.read_text())
    groups = (tuple(Running(**row) for row in group) for group in written["groups"])
    alive = (tuple(one for one in group if one.process()) for group in groups)
    return Left(tuple(group for group in alive if group), tuple(written["containers"]))


def forget() -> None:
    """Nothing is written down any more."""
    LEFT.unlink(missing_ok=True)


def _stop(processes: Sequence[psutil.Process], seconds: float) -> list[psutil.Process]:
    """SIGTERM, and SIGKILL for those returned, which took longer."""
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=seconds)
    return list(alive)


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
