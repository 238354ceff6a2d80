"""Where the demo keeps its files, and that only one demo uses them at a time."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.local.demo_screen import DemoError
from deploy.local.engine_build import cache_dir

FOLDER = cache_dir() / "demo"
RUN = FOLDER / "run"
"""Logs, settings and data of the latest run."""
KEY = FOLDER / "token.key"
LEFT = FOLDER / "running.json"


@contextmanager
def alone() -> Iterator[None]:
    """Hold the demo's files; raises DemoError while another demo runs in the foreground."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            cure = "end it with Ctrl-C where it runs, or wait for its end"
            raise DemoError("another `make demo` is running", cure) from error
        yield


def fresh() -> None:
    """Empty the run's folder."""
    shutil.rmtree(RUN, ignore_errors=True)
    RUN.mkdir(parents=True)


def short(path: Path) -> str:
    """The path as a user types it here."""
    return os.path.relpath(path)
