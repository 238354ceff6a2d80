"""What valid settings lead to: each rule knows the settings alone, and asks nobody.

What cannot work at all has been refused by `bridge.settings` before.
"""

from __future__ import annotations

import errno
import ipaddress
import math
import socket
from collections.abc import Iterator, Mapping
from datetime import timedelta
from urllib.parse import unquote, urlsplit

from bridge.check.findings import Finding, ok, problem, warning
from bridge.settings import Address, EngineSettings, Settings, TopicSettings, duration_text

_NAMED_MAX = 3


def look(settings: Settings) -> Iterator[Finding]:
    """Every warning on the settings; the address of [status] is tried for a moment."""
    topics = ", ".join(settings.topics)
    yield ok("settings", f"worker_id {settings.worker_id!r}, topics: {topics}")
    yield from _secrecy(settings)
    yield from _times(settings)
    if settings.status.address is not None:
        yield from _listening(settings.status.address)


def _secrecy(settings: Settings) -> Iterator[Finding]:
    if settings.token_key_file is None:
        text = "not set, so correlation ids are unsigned and any worker can answer for any task"
        cure = "make a key by: openssl rand -base64 32 > key"
        yield warning("settings", "token_key_file", text, cure)
    urls = [urlsplit(url) for url in settings.broker.amqp_urls()]
    if any(
        unquote(url.username or "") == "guest" and not is_loopback(url.hostname) for url in urls
    ):
        text = (
            "RabbitMQ lets the user guest in only from its own machine, and its password is known"
        )
        cure = "make a user for the bridge; set broker.username and broker.password_file"
        yield warning("settings", "broker.username", text, cure)
    engine = urlsplit(settings.engine.url)
    if (
        engine.scheme == "http"
        and not is_loopback(engine.hostname)
        and has_credentials(settings.engine)
    ):
        text = "the engine's credentials go over the network in the clear"
        yield warning("settings", "engine.url", text, "use https://")
    sign_in = urlsplit(settings.engine.oauth2_token_url or "")
    if sign_in.scheme == "http" and not is_loopback(sign_in.hostname):
        text = "the client's secret goes over the network in the clear"
        yield warning("settings", "engine.oauth2_token_url", text, "use https://")


def _times(settings: Settings) -> Iterator[Finding]:
    poll, grace = settings.engine.poll_timeout, settings.stop_grace
    if grace < poll:
        text = f"{duration_text(grace)} is shorter than engine.poll_timeout, so a stop may be hard"
        yield warning(
            "settings", "stop_grace", text, f'set stop_grace = "{duration_text(2 * poll)}"'
        )
    answering = {name: t for name, t in settings.topics.items() if t.reply != "none"}
    renewals = sum(t.max_in_flight * 2 / t.lease.total_seconds() for t in answering.values())
    if renewals > settings.renew_warn:
        text = (
            f"with every topic full, a replica renews {renewals:.0f} locks a second "
            f"(renew_warn = {settings.renew_warn:g})"
        )
        better = better_leases(answering, renewals / settings.renew_warn)
        cure = f"set {_leases(better)}, or lower max_in_flight"
        yield warning("settings", _lease_key(better), text, cure)


def better_leases(topics: Mapping[str, TopicSettings], factor: float) -> dict[str, timedelta]:
    """The leases with which the topics need `factor` times fewer renewals, rounded up."""
    return {name: _rounded_up(topic.lease * factor) for name, topic in topics.items()}


def _rounded_up(lease: timedelta) -> timedelta:
    unit = 60 if lease >= timedelta(minutes=10) else 1
    return timedelta(seconds=math.ceil(lease.total_seconds() / unit) * unit)


def _lease_key(leases: Mapping[str, timedelta]) -> str:
    if len(leases) == 1:
        return f"topics.{next(iter(leases))}.lease"
    return "topic_defaults.lease" if len(set(leases.values())) == 1 else "topics.*.lease"


def _leases(leases: Mapping[str, timedelta]) -> str:
    if len(set(leases.values())) == 1:
        return f'lease = "{duration_text(next(iter(leases.values())))}"'
    named = [f'"{duration_text(lease)}" for {name}' for name, lease in leases.items()]
    more = f" and so on for {len(named) - _NAMED_MAX} more" if len(named) > _NAMED_MAX else ""
    return f"lease = {', '.join(named[:_NAMED_MAX])}{more}"


def _listening(address: Address) -> Iterator[Finding]:
    try:
        # As the server will do it: an address with connections in TIME_WAIT can be had.
        with socket.create_server(address):
            return
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = f"port {address.port} is taken, maybe by this very bridge"
            yield warning("settings", "status.listen", text, "if it is not, choose another")
        else:
            text = f"cannot be had: {error.strerror}"
            cure = 'choose an address of this machine, or "" for none'
            yield problem("settings", "status.listen", text, cure)


def has_credentials(engine: EngineSettings) -> bool:
    """Whether calls to the engine carry a secret."""
    authorization = any(name.lower() == "authorization" for name in engine.headers)
    own = engine.username or engine.token or engine.token_file or engine.oauth2_token_url
    return bool(own or authorization)


def is_loopback(host: str | None) -> bool:
    """Whether a host of a URL is this machine."""
    if host is None or host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
