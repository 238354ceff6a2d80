"""What a run of the kit needs, settled before anything is started.  Connects to nothing."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from bridge.broker import BrokerOptions, Exchange
from bridge.conform.examples import Example, load_examples
from bridge.conform.verdict import CannotRun
from bridge.errors import SettingsError
from bridge.plan import broker_options, topics, topology
from bridge.settings import Settings, load
from bridge.topics import Topic

# The kit's queue goes by itself where the kit was killed.
_QUEUE_ARGUMENTS = {
    "x-queue-type": "quorum",
    "x-overflow": "reject-publish",
    "x-delivery-limit": 20,
    "x-expires": 600_000,
}
# A topic that lets the settings of others be read.
_NOBODYS = "external-task-bridge.conform"


@dataclass(frozen=True)
class Setup:
    """One worker and how to try it.  `command` None: it runs already.

    `timeout` (seconds) is how long one act of the worker may take, `start_timeout` how long it may
    take until it consumes.  `environ` is what a started worker gets beside AMQP_URL.  `exchanges`
    are those of the bridge that a worker may count on.
    `quorum_results`: the bridge makes the result queue where there is none, as a quorum queue.
    """

    topic: Topic
    queue: str
    prefix: str
    broker: BrokerOptions
    exchanges: tuple[Exchange, ...] = ()
    command: tuple[str, ...] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)
    examples: Mapping[str, Example] = field(default_factory=dict)
    cases: tuple[str, ...] = ()
    timeout: float = 10.0
    start_timeout: float = 60.0
    quorum_results: bool = True

    @property
    def amqp_url(self) -> str:
        """Holds credentials: never print it."""
        return self.broker.urls[0]

    @property
    def address(self) -> tuple[str, int]:
        """Where RabbitMQ listens."""
        parts = urlsplit(self.amqp_url)
        return parts.hostname or "localhost", parts.port or 5672

    def worker_environ(self, port: int) -> dict[str, str]:
        """The environment of a worker whose broker is at a port of this machine."""
        parts = urlsplit(self.amqp_url)
        userinfo, at, _ = parts.netloc.rpartition("@")
        local = parts._replace(netloc=f"{userinfo}{at}127.0.0.1:{port}").geturl()
        return {**self.environ, "AMQP_URL": local}

    def queue_arguments(self, dead_letters: str) -> dict[str, Any]:
        """How the worker's queue is made where there is none."""
        if self.topic.replies.profile == "celery":
            return {}  # it declares its queue itself
        dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead_letters}
        return _QUEUE_ARGUMENTS | dead


@dataclass(frozen=True)
class Wanted:
    """What the command line says about the worker."""

    command: str | None = None
    queue: str | None = None
    topic: str | None = None
    amqp_url: str | None = None
    examples: Path | None = None
    cases: tuple[str, ...] = ()
    timeout: float = 10.0


def prepare(config: Path | None, wanted: Wanted, environ: Mapping[str, str]) -> Setup:
    """The topic as the settings have it, or one with defaults.  Raises SettingsError, CannotRun."""
    settings, topic = _topic(config, wanted, environ)
    if not topic.answers:
        raise CannotRun(
            f'topics.{topic.name}.reply is "none"; a worker that never answers has no kit'
        )
    broker = broker_options(settings.broker)
    if wanted.amqp_url:
        broker = replace(broker, urls=(_checked(wanted.amqp_url),), password_file=None)
    command = None if wanted.command is None else _command(wanted.command, environ)
    if command and urlsplit(broker.urls[0]).scheme == "amqps":
        raise CannotRun(
            "--cmd with an amqps:// address: the kit cannot look into TLS; "
            "use an amqp:// address, or --queue with the worker running"
        )
    return Setup(
        topic=topic,
        queue=wanted.queue or topic.queue,
        prefix=settings.broker.prefix,
        broker=broker,
        exchanges=_exchanges(settings),
        command=command,
        environ=environ,
        examples={} if wanted.examples is None else load_examples(wanted.examples),
        cases=wanted.cases,
        timeout=wanted.timeout,
        quorum_results=settings.broker.declare == "missing",
    )


def _topic(
    config: Path | None, wanted: Wanted, environ: Mapping[str, str]
) -> tuple[Settings, Topic]:
    """The worker's topic: the one named, or the one whose queue is named."""
    name = wanted.topic
    if name is None and wanted.queue is not None:
        known = topics(load(config, _with_topic(environ, _NOBODYS))).values()
        served = (topic.name for topic in known if topic.queue == wanted.queue)
        name = next(served, wanted.queue)
    if name is None:
        raise CannotRun("--topic or --queue is missing; name the worker's topic, or its queue")
    settings = load(config, _with_topic(environ, name))
    topic = topics(settings)[name]
    if topic.shape.exchange and wanted.queue is None and topic.queue == name:
        raise CannotRun(
            f"topics.{name}.exchange is set, so no settings say where its messages end; "
            "name the worker's queue with --queue"
        )
    return settings, topic


def _exchanges(settings: Settings) -> tuple[Exchange, ...]:
    """For answers, for what is rejected and for gone notices, as the bridge makes them."""
    names = settings.broker.names
    known = {names.results_exchange, names.dead_exchange, names.gone_exchange}
    parts = (part for part in topology(settings) if isinstance(part, Exchange))
    return tuple(part for part in parts if part.name in known)


def _with_topic(environ: Mapping[str, str], name: str) -> dict[str, str]:
    named = environ.get("BRIDGE_TOPICS")
    return {**environ, "BRIDGE_TOPICS": f"{named},{name}" if named else name}


def _checked(url: str) -> str:
    try:
        loaded = load(None, {"BRIDGE_TOPICS": "a", "BRIDGE_BROKER__URL": url})
    except SettingsError as error:
        _, _, why = error.problems[0].partition(": ")
        raise CannotRun(f"--amqp-url (or AMQP_URL): {why}") from None
    return loaded.broker.amqp_urls()[0]


def _command(line: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    try:
        words = tuple(shlex.split(line))
    except ValueError as error:
        raise CannotRun(f"--cmd: {error}; quote it as in a shell") from None
    if not words or shutil.which(words[0], path=environ.get("PATH")) is None:
        raise CannotRun(f"--cmd: there is no program {(*words, '')[0]!r}; name one, or its path")
    return words
