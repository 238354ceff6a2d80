"""The programs that the benchmarks run beside the bridge, built once into the cache.

A build stands under a name made of its sources, so a change makes a new one.  Raises PartError with
the cure where a toolchain is missing or a build fails.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.engine_build import cache_dir
from deploy.local.programs import Program
from tests.consumers.stacks import run

HERE = Path(__file__).resolve().parent
READY = "ready\n"
START_LIMIT_S, GRACE_S = 60.0, 10.0

Words = tuple[str, ...]


def native() -> Words:
    """The compiled client, starter and engine stand-in."""
    return (str(_go("native")),)


def worker() -> Words:
    """The compiled worker."""
    return (str(_go("worker")),)


def java_peer() -> Words:
    """The official Java client; takes the engine's address and a topic."""

    def build(target: Path, log: Path) -> None:
        maven = ["mvn", "-q", "-B", "-ntp", "-f", str(target / "pom.xml"), "package"]
        run(maven, log, "apt-get install default-jdk-headless maven")

    return ("java", "-jar", str(_built("java", HERE / "peers/java", build) / "target/peer.jar"))


def javascript_peer() -> Words:
    """The official JavaScript client; takes the engine's address, a topic, and maybe `tell`."""

    def build(target: Path, log: Path) -> None:
        npm = ["npm", "--prefix", str(target), "install", "--no-package-lock", "--loglevel=error"]
        run([*npm, "--no-audit", "--no-fund"], log, "apt-get install nodejs npm")

    return ("node", str(_built("javascript", HERE / "peers/javascript", build) / "peer.mjs"))


def python_peer() -> Words:
    """The Python client in an environment of its own; takes the engine's address and a topic."""

    def build(target: Path, log: Path) -> None:
        run([sys.executable, "-m", "venv", target / "env"], log, "apt-get install python3-venv")
        pip = [str(target / "env/bin/python"), "-m", "pip", "install", "--quiet"]
        wanted = ["--requirement", str(target / "requirements.txt")]
        run([*pip, *wanted], log, "make sure that pip can install packages")

    built = _built("python", HERE / "peers/python", build)
    return (str(built / "env/bin/python"), str(built / "peer.py"))


def _go(name: str) -> Path:
    def build(target: Path, log: Path) -> None:
        run(["go", "build", "-C", str(target), "-o", name, "."], log, "install Go 1.22 or newer")

    return _built(name, HERE / name, build) / name


def _built(name: str, source: Path, build: Callable[[Path, Path], None]) -> Path:
    files = sorted(path for path in source.iterdir() if path.is_file())
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
    target = cache_dir() / "benchmarks" / f"{name}-{digest[:12]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        for file in files:
            (Path(scratch) / "made").mkdir(exist_ok=True)
            shutil.copy(file, Path(scratch) / "made")
        try:
            # In its last place: an environment of Python's knows its own path.
            (Path(scratch) / "made").rename(target)
            build(target, Path(scratch) / "log")
        except BaseException:
            shutil.rmtree(target, ignore_errors=True)
            raise
    return target


@contextmanager
def running(
    name: str,
    words: Sequence[str],
    *,
    log: Path,
    env: Mapping[str, str] | None = None,
    wait: bool = True,
) -> Iterator[Program]:
    """A program that has said it is ready; SIGTERM ends it."""
    program = Program(name, words, log=log, environment={**os.environ, **(env or {})})
    try:
        if wait:
            wait_ready(program)
        yield program
    finally:
        program.stop(grace_s=GRACE_S)


def wait_ready(program: Program) -> None:
    """Return at once when it says that it is ready; PartError when it ends or takes too long."""
    until = time.monotonic() + START_LIMIT_S
    while READY not in program.log.read_text():
        if not program.running:
            program.fail(f"ended with exit code {program.exit_code} before it was ready")
        if time.monotonic() > until:
            program.fail("was not ready in time")
        time.sleep(0.002)
