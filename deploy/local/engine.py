"""A real process engine on this machine: Camunda 7 or Operaton, of deploy/engine.

Builds it once, starts and ends it. Refuses to know anything of the REST API but its address.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

import requests

from deploy.local.engine_build import EngineKind, build_engine
from deploy.local.programs import Program, free_port

START_LIMIT_S = 120.0
STOP_GRACE_S = 15.0
# One small heap and one garbage collector thread: two cores are shared with broker and bridge.
JVM_OPTIONS = ("-Xmx512m", "-XX:+UseSerialGC")


class EngineProcess:
    """A running engine. Leaving its `with` block stops it."""

    controllable = True
    container: str | None = None

    def __init__(self, kind: EngineKind, port: int, command: list[str], log: Path) -> None:
        self.kind = kind
        self.port = port
        self.log = log
        self._command = command
        self._program = self._start()

    @property
    def url(self) -> str:
        """The base of the REST API, without a slash at the end."""
        return f"http://127.0.0.1:{self.port}/engine-rest"

    @property
    def pid(self) -> int:
        return self._program.pid

    @property
    def pids(self) -> tuple[int, ...]:
        """Every process to end when nobody holds this object any more."""
        return (self.pid,)

    @property
    def running(self) -> bool:
        return self._program.running

    def stop(self) -> None:
        """SIGTERM, then SIGKILL if it takes longer than 15 s."""
        self._program.stop(grace_s=STOP_GRACE_S)

    def kill(self) -> None:
        """SIGKILL, as in a crash. Only an engine with a `database` keeps its tasks."""
        self._program.kill()

    def restart(self) -> None:
        """Start again after `stop` or `kill`, with the same port, database and properties."""
        self._program = self._start()

    def close(self) -> None:
        self.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _start(self) -> Program:
        program = Program(f"the {self.kind} engine", self._command, log=self.log)
        try:
            program.wait_until(lambda: answers(self.url), limit_s=START_LIMIT_S)
        except BaseException:
            program.kill()
            raise
        return program


def start_engine(
    kind: EngineKind,
    *,
    port: int | None = None,
    database: Path | None = None,
    properties: Mapping[str, object] | None = None,
    log_dir: Path,
) -> EngineProcess:
    """An engine whose REST API answers, on 127.0.0.1 only; PartError with the log's end if not.

    Without `database` (a file name without suffix) it lives in memory. `properties` are Spring's,
    for instance `{"spring.profiles.active": "basic-auth"}` to be asked for demo/demo.
    """
    jar = build_engine(kind)
    port = port or free_port()
    log = log_dir / f"{kind}-{port}.log"
    settings = {"server.port": port, **_database(database), **(properties or {})}
    archive = jar.with_suffix(".jsa")
    if not archive.exists():
        _archive_classes(kind, jar, archive, log_dir)
    java = ["java", *JVM_OPTIONS, f"-XX:SharedArchiveFile={archive}", "-jar", str(jar)]
    command = [*java, *(f"--{key}={value}" for key, value in settings.items())]
    return EngineProcess(kind, port, command, log)


def answers(url: str) -> bool:
    """Whether an engine's REST API is there, be it that it asks for credentials."""
    try:
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{url}/version", timeout=10).status_code in {200, 401}
    except requests.RequestException:
        return False


def _database(path: Path | None) -> dict[str, str]:
    if path is None:
        return {}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without WRITE_DELAY=0 a killed H2 loses what it committed in its last half second.
    options = "WRITE_DELAY=0;DB_CLOSE_ON_EXIT=FALSE"
    return {"spring.datasource.url": f"jdbc:h2:file:{path.resolve()};{options}"}


def _archive_classes(kind: EngineKind, jar: Path, archive: Path, log_dir: Path) -> None:
    """Start and stop the engine once, so that Java leaves an archive of the classes it loaded."""
    port, draft = free_port(), archive.with_suffix(f".{os.getpid()}")
    java = ["java", *JVM_OPTIONS, f"-XX:ArchiveClassesAtExit={draft}", "-jar", str(jar)]
    log = log_dir / f"{kind}-first-start.log"
    first = EngineProcess(kind, port, [*java, f"--server.port={port}"], log)
    first.stop()
    if draft.exists():
        draft.rename(archive)
    else:  # a Java that writes none also ignores an empty one
        archive.touch()
