"""Existing applications of other stacks: builds them once, and starts them as their owners would.

A build stands in the cache under a name made of its sources, so a change makes a new one.  Raises
PartError, with the cure, where the toolchain is missing or the build fails.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from deploy.local.choice import Broker
from deploy.local.engine_build import cache_dir
from deploy.local.programs import PartError, Program, tail

CONSUMERS = Path(__file__).resolve().parents[2] / "consumers"
BUILD_LIMIT_S, START_LIMIT_S, GRACE_S = 600.0, 60.0, 10.0
DOWNLOADS = 3


def celery_python() -> Path:
    """The Python of a virtual environment that has the Celery of consumers/celery, and not us."""
    source = CONSUMERS / "celery" / "requirements.txt"

    def build(target: Path, log: Path) -> None:
        run([sys.executable, "-m", "venv", target], log, "apt-get install python3-venv")
        pip = [str(target / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        run([*pip, "--requirement", str(source)], log, "make sure that pip can install packages")

    return built("celery", [source], build) / "bin" / "python"


def spring_jar() -> Path:
    """The application of consumers/spring as Maven packages it, on a machine that has Java."""
    if shutil.which("java") is None:
        raise PartError("java is missing: apt-get install default-jdk-headless")
    project = CONSUMERS / "spring"
    sources = [project / "pom.xml", *sorted((project / "src").rglob("*"))]

    def build(target: Path, log: Path) -> None:
        shutil.copytree(project, target, ignore=shutil.ignore_patterns("target"))
        maven = ["mvn", "-q", "-B", "-ntp", "-f", str(target / "pom.xml"), "package"]
        run(maven, log, "apt-get install default-jdk-headless maven")

    return built("spring", [path for path in sources if path.is_file()], build) / (
        "target/payments.jar"
    )


def built(name: str, sources: Sequence[Path], build: Callable[[Path, Path], None]) -> Path:
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    target = cache_dir() / "consumers" / f"{name}-{digest[:12]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{name}-") as scratch:
        build(Path(scratch) / "result", Path(scratch) / "log")
        try:
            (Path(scratch) / "result").rename(target)
        except OSError:  # another run was faster, and built the same
            if not target.is_dir():
                raise
    return target


def run(command: Sequence[str | Path], log: Path, cure: str) -> None:
    """Three times at most: it downloads, and not every tool asks a registry twice."""
    for left in reversed(range(DOWNLOADS)):
        try:
            with log.open("ab") as output:
                subprocess.run(
                    command, stdout=output, stderr=output, timeout=BUILD_LIMIT_S, check=True
                )
        except FileNotFoundError as error:
            raise PartError(f"{error.filename} is missing: {cure}") from error
        except subprocess.SubprocessError as error:
            if left == 0 or isinstance(error, subprocess.TimeoutExpired):
                raise PartError(f"{error}: {cure}. The end of its output:\n{tail(log)}") from error
        else:
            return


@contextmanager
def running(
    name: str,
    command: Sequence[str | Path],
    *,
    amqp_url: str,
    log: Path,
    ready: Callable[[], bool],
    env: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """An application that has taken up its work, with the broker in `AMQP_URL`; SIGTERM ends it."""
    environment = {**os.environ, "AMQP_URL": amqp_url, **(env or {})}
    program = Program(name, command, log=log, environment=environment)
    try:
        program.wait_until(ready, limit_s=START_LIMIT_S)
        yield program
    finally:
        program.stop(grace_s=GRACE_S)


@contextmanager
def vhost(broker: Broker) -> Iterator[str]:
    """The AMQP URL of a virtual host of its own: these applications have queues of fixed names."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield broker.add_vhost(name)
    broker.delete_vhost(name)
