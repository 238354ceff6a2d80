"""Where broker and engine come from: a URL given by the user, a local program, Docker, or nowhere.

The decision is a pure function of what exists; `open_broker` and `open_engine` carry it out. What
they give has the same attributes whatever was chosen; what is not ours is never stopped.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, assert_never

from deploy.local import system as machine
from deploy.local.engine import start_engine
from deploy.local.engine_build import EngineKind
from deploy.local.given import GivenBroker, GivenEngine
from deploy.local.programs import PartError
from deploy.local.rabbitmq import start_rabbitmq
from deploy.local.system import Part, System, install_command

URL_VARIABLE: Mapping[Part, str] = {"broker": "AMQP_URL", "engine": "ENGINE_URL"}


@dataclass(frozen=True)
class Given:
    """The user named it; nothing is started."""

    url: str


@dataclass(frozen=True)
class Local:
    """A program of this machine."""


@dataclass(frozen=True)
class Install:
    """A program of this machine, after these Debian packages are installed."""

    packages: tuple[str, ...]


@dataclass(frozen=True)
class Docker:
    """A container."""


@dataclass(frozen=True)
class Nothing:
    """Not to be had. `cure` tells the user what to do."""

    cure: str


Choice = Given | Local | Install | Docker | Nothing


class RunningPart(Protocol):
    """What every broker and every engine here offers.

    `controllable` says whether `stop`, `kill` and `restart` work; they raise PartError otherwise.
    `pids` are the processes to end, and `container` the container to remove, when nobody holds
    the object any more.
    """

    controllable: bool
    container: str | None

    @property
    def url(self) -> str: ...
    @property
    def pids(self) -> tuple[int, ...]: ...
    def stop(self) -> None: ...
    def kill(self) -> None: ...
    def restart(self) -> None: ...
    def close(self) -> None:
        """End it for good where it is ours, and leave it alone where it is not."""


class Engine(RunningPart, Protocol):
    """`url` is the base of the REST API (`.../engine-rest`)."""


class Broker(RunningPart, Protocol):
    """`url` is an AMQP URL of its first virtual host."""

    @property
    def management_url(self) -> str: ...
    def url_of(self, vhost: str) -> str: ...
    def add_vhost(self, name: str) -> str: ...
    def delete_vhost(self, name: str) -> None: ...
    def ctl(self, *arguments: str) -> str: ...


def choose(
    part: Part, system: System, environment: Mapping[str, str], kind: EngineKind = "camunda"
) -> Choice:
    """The best way to this part. Pure: looks at nothing but its arguments."""
    if url := environment.get(URL_VARIABLE[part], ""):
        return Given(url)
    lacking = system.lacks(part, kind)
    if not lacking:
        return Local()
    if system.can_install:
        return Install(lacking)
    if system.docker:
        return Docker()
    return Nothing(
        f"no {part} to be had here: {install_command(lacking)}, or start Docker, "
        f"or set {URL_VARIABLE[part]}"
    )


def open_broker(*, directory: Path, keep: bool = False) -> Broker:
    """A broker that accepts connections; the caller ends it by `close`.

    Files go below `directory`. With `keep` a container outlives this process. Raises PartError
    with the cure when there is none.
    """
    match chosen := _prepared("broker"):
        case Given(url):
            return GivenBroker(url, os.environ.get("AMQP_MANAGEMENT_URL"))
        case Local() | Install():
            return start_rabbitmq(base_dir=directory)
        case Docker():
            from deploy.local.containers import DockerBroker  # noqa: PLC0415 - only with Docker

            return DockerBroker(keep=keep)
        case Nothing(cure):
            raise PartError(cure)
        case _:
            assert_never(chosen)


def open_engine(kind: EngineKind = "camunda", *, directory: Path, keep: bool = False) -> Engine:
    """An engine whose REST API answers; see `open_broker`. A given URL is taken for any kind."""
    match chosen := _prepared("engine", kind):
        case Given(url):
            return GivenEngine(url)
        case Local() | Install():
            return start_engine(kind, log_dir=directory)
        case Docker():
            from deploy.local.containers import DockerEngine  # noqa: PLC0415 - only with Docker

            return DockerEngine(kind, keep=keep)
        case Nothing(cure):
            raise PartError(cure)
        case _:
            assert_never(chosen)


@contextmanager
def broker(*, directory: Path) -> Iterator[Broker]:
    """`open_broker` for the length of a `with` block."""
    part = open_broker(directory=directory)
    try:
        yield part
    finally:
        part.close()


@contextmanager
def engine(kind: EngineKind = "camunda", *, directory: Path) -> Iterator[Engine]:
    """`open_engine` for the length of a `with` block."""
    part = open_engine(kind, directory=directory)
    try:
        yield part
    finally:
        part.close()


def _prepared(part: Part, kind: EngineKind = "camunda") -> Choice:
    """The choice for this machine, with its packages installed; an install that fails says so."""
    chosen = choose(part, machine.look(), os.environ, kind)
    if isinstance(chosen, Install):
        for note in machine.install(chosen.packages):
            print(f"note: {note}")
    return chosen
