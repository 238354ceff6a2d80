"""CPU time, memory and cores of processes.  Linux: reads /proc, changes nothing but affinities."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil


def cpu_seconds(*pids: int) -> float:
    """User and system time that these processes have taken since they began."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return float(sum(t.user + t.system for t in times))


def rss_mb(*pids: int) -> float:
    """Resident memory of processes in MB, a million bytes each."""
    return sum(float(psutil.Process(pid).memory_info().rss) for pid in pids) / 1e6


@contextmanager
def pinned(engine: int, others: Sequence[int]) -> Iterator[None]:
    """The engine on the first core, this process, its future children and `others` on the second.

    That is how a deployment on two hosts behaves.  Afterwards all may run everywhere again.
    """
    cores = sorted(os.sched_getaffinity(0))
    first, second = {cores[0]}, {cores[1 % len(cores)]}
    everyone = [engine, os.getpid(), *others]
    try:
        for pid in everyone:
            _bind(pid, first if pid == engine else second)
        yield
    finally:
        for pid in everyone:
            _bind(pid, set(cores))


def _bind(pid: int, cores: set[int]) -> None:
    # An affinity belongs to a thread; new threads take their maker's, so twice catches them all.
    for _ in range(2):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.sched_setaffinity(int(thread.name), cores)
