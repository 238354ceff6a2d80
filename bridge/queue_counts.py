"""How full queues are and who consumes from them.  Looks only: takes and declares nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from bridge import plan
from bridge.broker.inspect import Inspector, QueueSize, inspectors
from bridge.broker.options import BrokerOptions, describe
from bridge.errors import BrokerUnavailable
from bridge.management import Management, ManagementDenied, ManagementUnavailable
from bridge.settings import BrokerSettings


@dataclass(frozen=True)
class QueueCount:
    """What a queue holds: `ready` messages wait, `unacked` ones are at consumers (None: only the
    management API tells, see `count_queues`).
    """

    ready: int
    unacked: int | None
    consumers: int


def count_queues(broker: BrokerSettings, names: Sequence[str]) -> dict[str, QueueCount | None]:
    """The counts of these queues; None for one that does not exist or must not be looked at.

    One call of the management API where `management_url` is set, whose numbers are some seconds
    old.  What it cannot tell, and everything where it does not answer, is looked at over one short
    AMQP connection, which knows no unacknowledged messages.  Raises BrokerUnavailable.
    """
    options = plan.broker_options(broker)
    found: dict[str, QueueCount | None] = {}
    if broker.management_url is not None:
        with suppress(ManagementDenied, ManagementUnavailable):  # `check` says why
            found.update(_told(broker, broker.management_url, options, names))
    if left := [name for name in names if name not in found]:
        found.update(_looked_at(options, left))
    return {name: found[name] for name in names}


def _told(
    broker: BrokerSettings, url: str, options: BrokerOptions, names: Sequence[str]
) -> dict[str, QueueCount | None]:
    """What the management API says; without those queues whose counts it does not know yet."""
    user = _parameters(options)
    management = Management(
        url, user.credentials.username, user.credentials.password, broker.ca_file
    )
    told = {str(one.get("name")): one for one in management.queues(user.virtual_host)}
    found: dict[str, QueueCount | None] = {}
    for name in names:
        count = _count(told[name]) if name in told else None
        if count is not None or name not in told:
            found[name] = count
    return found


def _count(told: Mapping[str, Any]) -> QueueCount | None:
    ready, unacked = told.get("messages_ready"), told.get("messages_unacknowledged")
    consumers = told.get("consumers")
    if ready is None or unacked is None or consumers is None:
        return None
    return QueueCount(int(ready), int(unacked), int(consumers))


def _looked_at(options: BrokerOptions, names: Sequence[str]) -> dict[str, QueueCount | None]:
    inspector = _opened(options)
    with inspector:
        sizes = {name: inspector.queue(name) for name in names}
    return {
        name: QueueCount(size.messages, None, size.consumers)
        if isinstance(size, QueueSize)
        else None
        for name, size in sizes.items()
    }


def _opened(options: BrokerOptions) -> Inspector:
    """A connection to the first address that lets us in."""
    failed: BrokerUnavailable | None = None
    try:
        candidates = inspectors(options, "queue counts")
    except OSError as error:
        raise BrokerUnavailable(describe(error)) from error
    for candidate in candidates:
        try:
            return candidate.open()
        except BrokerUnavailable as error:
            failed = error
    raise failed or BrokerUnavailable("no address")


def _parameters(options: BrokerOptions) -> Any:
    """pika's view of the first address: user, password, virtual host."""
    try:
        return options.parameters("")[0]
    except OSError as error:
        raise BrokerUnavailable(describe(error)) from error
