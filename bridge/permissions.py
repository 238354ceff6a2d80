"""RabbitMQ's rights for the bridge and for workers: the least with which each can work.

A worker can touch its own topic only, but where its stack answers to reply_to alone: that takes the
default exchange, which is the way to every queue.  Prints what an administrator runs; connects to
nothing and holds no password.  The rules are those
of https://www.rabbitmq.com/docs/access-control; patterns are anchored, and every name in them is
escaped, because RabbitMQ looks for a match anywhere in a name.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Literal
from urllib.parse import unquote, urlsplit

from bridge import plan
from bridge.broker import Exchange, Queue
from bridge.check import rights
from bridge.check.rights import ToDo
from bridge.errors import SettingsError
from bridge.settings import BrokerSettings, Settings, TopicSettings

NOTHING = "^$"
# What Celery makes besides its task queue, to be controlled and to tell of itself, by default.
_CELERYS_OWN = (r"^(.+\.)?celery\.pidbox$", r"^celeryev(\..+)?$")
_METACHARACTERS = re.compile(r"[\\.^$*+?{}\[\]|()]")
_HEAD = """\
# Rights in virtual host {vhost} for these settings; to be run by an administrator of RabbitMQ.
# A password comes from a file that is made where there is none, never from the command line.
# Users exist for all virtual hosts: where one is there already, add_user fails and changes nothing.
"""


@dataclass(frozen=True, slots=True)
class TopicPermission:
    """The routing keys that a user may publish with, and bind with, at one topic exchange."""

    exchange: str
    write: str
    read: str


@dataclass(frozen=True, slots=True)
class User:
    """One user's rights as regular expressions.  For the bridge itself `topic` is empty and
    `queue` None; so is that of a worker whose queue the settings do not name.
    """

    name: str
    role: Literal["bridge", "worker"]
    topic: str
    queue: str | None
    configure: str
    write: str
    read: str
    topic_permissions: tuple[TopicPermission, ...] = ()


def users(settings: Settings, *, gone_notices: bool = False) -> list[User]:
    """The bridge with the least that it needs, then one worker for each topic.

    A worker reads its task queue, publishes to `<prefix>.results` with its own topic as routing
    key, and declares nothing.  With reply = "celery" or "spring" it publishes to the default
    exchange instead, which nothing can fence; Celery also makes its queues.  Behind an exchange of
    others the queue is known only where the settings name it; else there is no right to read.
    With `gone_notices` a worker may also make queues `<queue>.gone.<any>` and bind them to
    `<prefix>.gone` with its own topic.  Raises SettingsError where such a queue would be one of
    the bridge's or of another topic.
    """
    names = [part.name for part in plan.topology(settings) if isinstance(part, Queue)]
    names += [queue for t in settings.topics.values() if (queue := _tasks_queue(t)) is not None]
    for name, topic in settings.topics.items() if gone_notices else ():
        taken = [other for other in names if other.startswith(_gone_queues(topic))]
        if taken:
            why = f"queue {taken[0]!r} has the name of a queue for gone notices of this topic"
            raise SettingsError((f"topics.{name}.queue: {why}; choose another name for either",))
    workers = (_worker(t, settings.broker, gone_notices) for t in settings.topics.values())
    return [_bridge(settings), *workers]


def as_text(settings: Settings, found: Iterable[User]) -> str:
    """Lines for a shell, with comments between them; none holds a password."""
    files: set[str] = set()
    blocks = [_HEAD.format(vhost=repr(vhost(settings.broker)))]
    for user in found:
        comments = [f"# {comment}" for comment in _comments(settings, user)]
        blocks.append("\n".join([*comments, *_commands(settings, user, files), ""]))
    return "\n".join(blocks).rstrip("\n")


def as_json(settings: Settings, found: Iterable[User]) -> str:
    """`{"vhost", "users": [{"name", "role", "topic", "configure", ..., "topic_permissions"}]}`."""
    report = {"vhost": vhost(settings.broker), "users": [asdict(user) for user in found]}
    return json.dumps(report, indent=2, ensure_ascii=False)


def password_files(found: Iterable[User]) -> dict[str, str]:
    """By user the file that holds the password in the lines of `as_text`."""
    taken: set[str] = set()
    return {user.name: _password_file(user.name, taken) for user in found}


def vhost(broker: BrokerSettings) -> str:
    """As pika reads it: no path at all, or nothing behind the slash, is the virtual host `/`."""
    return unquote(urlsplit(broker.amqp_urls()[0]).path[1:]) or "/"


def pattern(names: Iterable[str]) -> str:
    """A regular expression that matches these names and no other."""
    escaped = sorted({_METACHARACTERS.sub(r"\\\g<0>", name) for name in names})
    if not escaped:
        return NOTHING
    return f"^({'|'.join(escaped)})$" if len(escaped) > 1 else f"^{escaped[0]}$"


# -- who needs what --------------------------------------------------------------------------------


def _bridge(settings: Settings) -> User:
    needs = rights.needed(settings, _declared(settings))
    looks = set(_looked_at(settings)) - needs["configure"] - needs["write"]
    return User(
        name=_bridge_name(settings.broker),
        role="bridge",
        topic="",
        queue=None,
        configure=pattern(needs["configure"]),
        write=pattern(needs["write"]),
        # From RabbitMQ 4.3.1 on even a passive look takes some right to what is looked at.
        read=pattern(needs["read"] | looks),
    )


def _declared(settings: Settings) -> ToDo:
    """What the bridge makes where nothing is there yet."""
    if settings.broker.declare != "missing":
        return ToDo()
    own = [p for p in plan.topology(settings) if isinstance(p, Queue) or p.type is not None]
    bindings = [(p.name, *b) for p in own if isinstance(p, Queue) for b in p.bindings]
    return ToDo(list[Exchange | Queue](own), bindings)


def _looked_at(settings: Settings) -> Iterator[str]:
    if settings.broker.declare == "passive":
        yield from (part.name for part in plan.topology(settings))
    yield from (topic.queue for topic in settings.topics.values() if topic.wait_for_consumer)


def _worker(topic: TopicSettings, broker: BrokerSettings, gone_notices: bool) -> User:
    names, own, queue = broker.names, pattern([topic.name]), _tasks_queue(topic)
    reads, writes, configures = [] if queue is None else [pattern([queue])], [], []
    topic_permissions: list[TopicPermission] = []
    if topic.reply == "json":
        writes.append(pattern([names.results_exchange]))
        topic_permissions.append(TopicPermission(names.results_exchange, own, NOTHING))
    elif topic.reply != "none":
        writes.append(pattern([rights.DEFAULT_EXCHANGE]))
    if topic.reply == "celery":
        # It declares and binds all that it uses; its exchange has the name of its queue.
        writes += [*reads, *_CELERYS_OWN]
        configures += [*reads, *_CELERYS_OWN]
        reads += _CELERYS_OWN
    if gone_notices:
        notices = f"^{pattern([_gone_queues(topic)])[1:-1]}[^.]+$"
        reads += [notices, pattern([names.gone_exchange])]
        writes.append(notices)
        configures.append(notices)
        topic_permissions.append(TopicPermission(names.gone_exchange, NOTHING, own))
    return User(
        name=f"worker-{topic.name}",
        role="worker",
        topic=topic.name,
        queue=queue,
        configure=_any(configures),
        write=_any(writes),
        read=_any(reads),
        topic_permissions=tuple(topic_permissions),
    )


def _tasks_queue(topic: TopicSettings) -> str | None:
    """The queue that workers take from; None where only the exchange's owner knows it."""
    if not topic.exchange or topic.wait_for_consumer or topic.queue != topic.name:
        return topic.queue
    by_celerys_habit = topic.reply == "celery" and topic.exchange == topic.routing_key
    return topic.exchange if by_celerys_habit else None


def _gone_queues(topic: TopicSettings) -> str:
    return f"{topic.queue}.gone."


def _any(patterns: list[str]) -> str:
    return "|".join(patterns) or NOTHING


def _bridge_name(broker: BrokerSettings) -> str:
    """The user of the settings; guest, whom everybody knows, gets a successor."""
    user = unquote(urlsplit(broker.amqp_urls()[0]).username or "guest")
    return broker.prefix if user == "guest" else user


# -- how it is said --------------------------------------------------------------------------------


def _comments(settings: Settings, user: User) -> Iterator[str]:
    if user.role == "bridge":
        declare = settings.broker.declare
        yield f'the bridge, with broker.declare = "{declare}"; name it in broker.username'
        return
    topic = settings.topics[user.topic]
    if user.queue is None:
        yield f"a worker of topic {user.topic!r}; its queue is yours, bound to {topic.exchange!r}:"
        yield "NOT FOR USE AS IT STANDS, there is no right to read. Put the queue's name into the"
        yield "last pattern, or into its table as queue (beside routing_key), and ask again; it"
    else:
        yield f"a worker of topic {user.topic!r}: takes from queue {user.queue!r},"
    yield from _on_answers(topic, settings.broker.names.results_exchange)


def _on_answers(topic: TopicSettings, exchange: str) -> Iterator[str]:
    if topic.reply == "none":
        yield "never answers"
    elif topic.reply == "json":
        yield f"answers to exchange {exchange!r} with routing key {topic.name!r}, not to reply_to"
    else:
        yield f'answers to reply_to (reply = "{topic.reply}"): that takes write on amq.default, the'
        yield "way to every queue, so nothing fences it in. An application that has a user already"
        yield "needs no new one, but this right besides its own"
    if topic.reply == "celery":
        yield "(one user for all its topics; the patterns name Celery's queues and exchanges)"


def _commands(settings: Settings, user: User, files: set[str]) -> Iterator[str]:
    file = _password_file(user.name, files)
    at_vhost = ("-p", vhost(settings.broker))
    yield f"test -s {file} || (umask 077; openssl rand -base64 24 > {file})"
    yield f"{_ctl('add_user', user.name)} < {file}"
    yield _ctl("set_permissions", *at_vhost, user.name, user.configure, user.write, user.read)
    for at in user.topic_permissions:
        yield _ctl("set_topic_permissions", *at_vhost, user.name, at.exchange, at.write, at.read)


def _ctl(*arguments: str) -> str:
    return shlex.join(["rabbitmqctl", *arguments])


def _password_file(user: str, taken: set[str]) -> str:
    """A name that needs no quoting; two users never share a file."""
    stem = re.sub(r"[^A-Za-z0-9._-]", "_", user).lstrip("-.") or "user"
    name, number = f"{stem}.password", 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}.password"
    taken.add(name)
    return name
