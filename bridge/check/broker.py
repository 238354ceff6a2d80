"""What RabbitMQ says to a bridge with these settings.  Looks only: makes and moves nothing.

With `broker.management_url` it reads arguments, bindings and rights over HTTP; without it, it says
what it could not look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from bridge import plan
from bridge.broker import Exchange, Queue
from bridge.broker.inspect import (
    BrokerUnreachable,
    Inspector,
    QueueSize,
    Refusal,
    Why,
    inspectors,
)
from bridge.check import celery, differences, rights, versions
from bridge.check.findings import Finding, ok, problem, warning
from bridge.check.rights import ToDo
from bridge.errors import BrokerUnavailable
from bridge.management import Management, ManagementDenied, ManagementUnavailable
from bridge.settings import BrokerSettings, Settings

OLDEST = (3, 10)

_CURES: Mapping[Why, str] = {
    "address": "start RabbitMQ, or correct the address",
    "login": "correct them here, or in broker.username and broker.password_file",
    "vhost": "correct its name in the address, or make it and give the user rights in it",
    "tls": "correct the address (amqps:// is mostly port 5671, amqp:// 5672)",
}


def look(settings: Settings) -> Iterator[Finding]:
    """Everything about the broker, and about the queues and exchanges of each topic."""
    candidates = inspectors(plan.broker_options(settings.broker))
    inspector, findings = _connected(candidates, settings.broker)
    yield from findings
    if inspector is None:
        return
    try:
        with inspector:
            management, findings = _management(settings.broker, inspector)
            yield from findings
            yield from _parts(settings, inspector, management)
    except BrokerUnavailable as error:
        yield problem("broker", "broker.url", f"the connection broke: {error}", "run check again")


def _parts(
    settings: Settings, inspector: Inspector, management: Management | None
) -> Iterator[Finding]:
    try:
        findings = list(_Look(settings, inspector, management).everything())
    except (ManagementDenied, ManagementUnavailable) as error:
        cure = "run check again, or remove broker.management_url"
        yield warning("broker", "broker.management_url", str(error), cure)
        findings = list(_Look(settings, inspector, None).everything())
    yield from findings


def _connected(
    candidates: list[Inspector], broker: BrokerSettings
) -> tuple[Inspector | None, list[Finding]]:
    """The first address that lets us in; each of the others is tried too."""
    usable: Inspector | None = None
    failed: list[tuple[str, Inspector, BrokerUnreachable]] = []
    findings: list[Finding] = []
    for number, candidate in enumerate(candidates):
        try:
            candidate.open()
        except BrokerUnreachable as error:
            key = f"broker.urls[{number}]" if broker.urls else "broker.url"
            failed.append((key, candidate, error))
            continue
        vhost = f"virtual host {candidate.vhost!r}"
        findings.append(ok("broker", f"{candidate.address}: connected, {vhost}"))
        if usable is None:
            usable = candidate
        else:
            candidate.__exit__(None, None, None)
    for key, candidate, why in failed:
        where, cure, text = key, _CURES[why.why], f"{candidate.address}: {why}"
        if why.refusal is not None:
            cure = why.refusal.cure
            where = key if why.refusal.key == "url" else f"broker.{why.refusal.key}"
        # Any address that works will do: the bridge goes on to the next.
        make = problem if usable is None else warning
        findings.append(make("broker", where, text, cure))
    return usable, findings


def _management(
    broker: BrokerSettings, inspector: Inspector
) -> tuple[Management | None, list[Finding]]:
    key = "broker.management_url"
    if broker.management_url is None:
        text = "not set, so rights and bindings could not be looked at"
        if broker.declare != "missing":
            text = "not set, so rights, bindings and arguments could not be looked at"
        cure = 'set it, such as "http://localhost:15672", for a user with the tag administrator'
        return None, [warning("broker", key, text, cure)]
    user = urlsplit(broker.amqp_urls()[0])
    management = Management(
        broker.management_url,
        unquote(user.username or ""),
        unquote(user.password or ""),
        broker.ca_file,
    )
    try:
        version = management.version()
    except ManagementDenied as error:
        cure = f"give {management.username!r} the tag management, or administrator to see rights"
        return None, [warning("broker", key, str(error), cure)]
    except ManagementUnavailable as error:
        cure = "start the management plugin, or correct the address"
        return None, [warning("broker", key, str(error), cure)]
    findings = [ok("broker", f"RabbitMQ {version}")]
    if versions.numbers(version) < OLDEST:
        text = f"RabbitMQ {version} is older than 3.10 and has no at-least-once dead letters"
        findings.append(warning("broker", "broker.url", text, "use RabbitMQ 3.10 or later"))
    return management, findings


@dataclass
class _Look:
    """One look at every part through an open connection."""

    settings: Settings
    inspector: Inspector
    management: Management | None
    to_do: ToDo = field(default_factory=ToDo)

    def everything(self) -> Iterator[Finding]:
        parts = plan.topology(self.settings)
        for part in parts:
            if isinstance(part, Exchange):
                yield from self._exchange(part)
            else:
                yield from self._queue(part)
        if self.to_do.parts:
            yield ok("broker", f"to be declared at the start: {_named(self.to_do.parts)}")
        elif self._declares:
            yield ok("broker", "every queue and exchange is there")
        yield from self._rights()

    @property
    def _declares(self) -> bool:
        return self.settings.broker.declare == "missing"

    def _exchange(self, part: Exchange) -> Iterator[Finding]:
        key = differences.owner_key(part, topic_queue=False)
        if not self.inspector.exchange(part.name):
            yield from self._missing(part, key, declared=part.type is not None)
        elif self.management is not None:
            found = self.management.exchange(self.inspector.vhost, part.name)
            yield from differences.of_exchange(part, found, key)
        elif part.type is not None:
            yield from self._compared(part, key)

    def _queue(self, part: Queue) -> Iterator[Finding]:
        topic = self.settings.topics.get(part.lane)
        takes_tasks = topic is not None and part.name == topic.queue
        key = differences.owner_key(part, takes_tasks)
        size = self.inspector.queue(part.name)
        if size is None:
            yield from self._missing(part, key, declared=True)
        elif isinstance(size, Refusal):
            text = f"queue {part.name!r}: {size.text}"
            yield problem(differences.group(part), key, text, "delete it, or choose another name")
        else:
            yield from self._size(part, key, size, takes_tasks)
            differing, dead = self._differing(part, key), self.settings.broker.names.dead_exchange
            is_celerys = celery.owns(self.settings, part)
            yield from (celery.left_alone(f, dead) if is_celerys else f for f in differing)
        yield from self._bindings(part, key, exists=size is not None)

    def _differing(self, part: Queue, key: str) -> Iterator[Finding]:
        if self.management is None:
            yield from self._compared(part, key)
            return
        found = self.management.queue(self.inspector.vhost, part.name)
        yield from differences.of_queue(part, found, key)
        if part.name == self.settings.broker.names.parked:
            yield from differences.of_limit(
                part, found, versions.numbers(self.management.version())
            )

    def _size(self, part: Queue, key: str, size: QueueSize, takes_tasks: bool) -> Iterator[Finding]:
        has = f"{size.messages} messages, {size.consumers} consumers"
        if takes_tasks and size.consumers == 0:
            text = f"nobody consumes from queue {part.name!r} ({size.messages} messages)"
            is_celerys = celery.owns(self.settings, part)
            cure = celery.START_WORKERS if is_celerys else "start its workers"
            yield warning("topics", key, text, cure)
        elif takes_tasks:
            yield ok("topics", f"{part.lane}: queue {part.name!r} has {has}", key)
        elif part.name == self.settings.broker.names.parked and size.messages:
            yield ok("broker", f"{size.messages} results lie parked in {part.name!r}", key)

    def _missing(self, part: Exchange | Queue, key: str, *, declared: bool) -> Iterator[Finding]:
        makes = declared and self._declares
        if makes:
            self.to_do.parts.append(part)
        if isinstance(part, Queue) and celery.owns(self.settings, part):
            yield celery.missing(part, key, declares=makes)
        elif not makes:
            declare = self.settings.broker.declare if declared else None
            yield differences.of_missing(part, key, declare)

    def _compared(self, part: Exchange | Queue, key: str) -> Iterator[Finding]:
        # The one declaration that is not passive.  RabbitMQ compares a declaration of what exists
        # and changes nothing; were the queue deleted since the look, it would make what `run` makes
        # at its start.  Hence never where `run` would not declare.
        if not self._declares:
            return
        refusal = self.inspector.compare(part)
        if refusal is not None:
            yield from differences.of_refusal(part, refusal, key)

    def _bindings(self, part: Queue, key: str, *, exists: bool) -> Iterator[Finding]:
        made: set[tuple[str, str]] = set()
        if exists and self.management is not None:
            made = self.management.bindings(self.inspector.vhost, part.name)
        for exchange, routing_key in part.bindings:
            if (exchange, routing_key) in made:
                continue
            if self._declares:
                self.to_do.bindings.append((part.name, exchange, routing_key))
            elif exists and self.management is not None:
                text = f"queue {part.name!r} is not bound to {exchange!r} with {routing_key!r}"
                cure = 'bind it, or set broker.declare = "missing"'
                yield problem(differences.group(part), key, text, cure)

    def _rights(self) -> Iterator[Finding]:
        if self.management is None:
            return
        if "administrator" not in self.management.whoami():
            user = self.management.username
            text = f"the rights of {user!r} could not be looked at: it lacks the tag administrator"
            cure = "run check once with the tag, or compare its rights by hand"
            yield warning("broker", "broker.management_url", text, cure)
            return
        patterns: Mapping[str, Any] = self.management.permissions(self.inspector.vhost)
        needs = rights.needed(self.settings, self.to_do)
        yield from rights.findings(needs, patterns, self.management.username)


def _named(parts: Sequence[Exchange | Queue]) -> str:
    """Exchanges and queues by name, kind by kind: an exchange may be called like a queue."""
    exchanges = ", ".join(part.name for part in parts if isinstance(part, Exchange))
    queues = ", ".join(part.name for part in parts if isinstance(part, Queue))
    kinds = (("exchanges", exchanges), ("queues", queues))
    return "; ".join(f"{kind} {names}" for kind, names in kinds if names)
