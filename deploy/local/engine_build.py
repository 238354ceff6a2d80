"""Builds the engine of deploy/engine, once for each content of its pom and sources.

The result stands in the cache as a directory: the jar, its libraries unpacked beside it and an
archive of loaded classes, which halve the start-up time. Starts no engine but to make that archive.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from deploy.local.programs import POLL_S, PartError, tail

EngineKind = Literal["camunda", "operaton"]
PROJECT = Path(__file__).resolve().parents[1] / "engine"
BUILD_LIMIT_S = 900.0


def cache_dir() -> Path:
    """`$BRIDGE_CACHE`, or `.cache` in the project root."""
    given = os.environ.get("BRIDGE_CACHE")
    return Path(given).resolve() if given else PROJECT.parents[1] / ".cache"


def built_dir(kind: EngineKind) -> Path:
    """Where the engine built from the present pom and sources stands, or would stand."""
    digest = hashlib.sha256()
    for path in [PROJECT / "pom.xml", *sorted((PROJECT / "src").rglob("*"))]:
        if path.is_file():
            digest.update(path.relative_to(PROJECT).as_posix().encode() + path.read_bytes())
    return cache_dir() / "engine" / f"{kind}-{digest.hexdigest()[:12]}"


def is_built(kind: EngineKind) -> bool:
    """Whether it can be started without Maven."""
    return built_dir(kind).is_dir()


def build_engine(kind: EngineKind) -> Path:
    """The jar of this engine, built if it is not in the cache; safe with others building too.

    Raises PartError with the end of Maven's output when the build fails.
    """
    target = built_dir(kind)
    with _alone(target.parent / "lock"):
        if not target.is_dir():
            with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{kind}-") as scratch:
                _build(kind, Path(scratch)).rename(target)
    return target / f"{kind}.jar"


def _build(kind: EngineKind, scratch: Path) -> Path:
    project, result, log = scratch / "project", scratch / "result", scratch / "maven.log"
    shutil.copytree(PROJECT, project, ignore=shutil.ignore_patterns("target"))
    maven = ["mvn", "-q", "-B", "-ntp", "-P", kind, "package"]
    _run(maven, cwd=project, log=log, what=f"the Maven build of {kind}")
    jar = project / "target" / f"{kind}.jar"
    unpack = ["java", "-Djarmode=tools", "-jar", str(jar), "extract", "--destination", str(result)]
    _run(unpack, cwd=project, log=log, what=f"unpacking {kind}")
    return result


def _run(command: Sequence[str | Path], *, cwd: Path, log: Path, what: str) -> None:
    try:
        with log.open("ab") as output:
            subprocess.run(
                command, cwd=cwd, stdout=output, stderr=output, timeout=BUILD_LIMIT_S, check=True
            )
    except FileNotFoundError as error:
        raise PartError(
            f"{what} needs {error.filename}: apt-get install default-jdk-headless maven"
        ) from error
    except subprocess.SubprocessError as error:
        raise PartError(f"{what} failed ({error}). The end of its output:\n{tail(log)}") from error


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    lock.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + BUILD_LIMIT_S
    with lock.open("w") as held:
        while True:
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise PartError(f"another build holds {lock} for too long") from None
                time.sleep(POLL_S)
        yield
