"""Rules between keys: what is right by itself and impossible together.  No I/O.

Each rule yields a `Problem` whose first key is the one to change.
"""

from collections import defaultdict
from collections.abc import Iterator
from datetime import timedelta
from typing import NamedTuple
from urllib.parse import urlsplit

from bridge.settings.model import (
    BrokerSettings,
    EngineSettings,
    Settings,
    TopicSettings,
)
from bridge.settings.names import is_creatable
from bridge.settings.values import duration_text

Key = tuple[str, ...]
_NAME_RULE = "1 to 200 letters, digits, dots, underscores, colons or hyphens, not beginning amq."
_CLIENT_SECRET = ("oauth2_client_secret", "oauth2_client_secret_file")
_OAUTH2 = (
    "oauth2_client_id",
    *_CLIENT_SECRET,
    "oauth2_client_auth",
    "oauth2_scope",
    "oauth2_audience",
)
_BASIC = ("username", "password", "password_file")


class Problem(NamedTuple):
    """`keys` are all the keys that the rule read, the one to change first."""

    keys: tuple[Key, ...]
    text: str


def find_problems(settings: Settings) -> Iterator[Problem]:
    """Every rule that these settings break."""
    yield from _engine(settings.engine)
    yield from _broker(settings.broker)
    if settings.token_key_file_old and not settings.token_key_file:
        keys = (("token_key_file_old",), ("token_key_file",))
        yield Problem(keys, "only goes with token_key_file; set the new key there, or remove this")
    for topic in settings.topics.values():
        yield from _times(topic, settings.broker)
        yield from _combinations(topic, settings.broker)
        yield from _names(topic, settings.broker)
    yield from _collisions(settings)


def _engine(engine: EngineSettings) -> Iterator[Problem]:
    yield from _credentials("engine", engine, needs_user=True)
    if engine.token and engine.token_file:
        yield _table(
            "engine", "token", "token_file", text="cannot stand beside token_file; keep one"
        )
    kinds = [
        key
        for key, is_set in (
            ("username", engine.username or engine.password or engine.password_file),
            ("token", engine.token),
            ("token_file", engine.token_file),
            ("oauth2_token_url", engine.oauth2_token_url),
            ("headers", any(name.lower() == "authorization" for name in engine.headers)),
        )
        if is_set
    ]
    if len(kinds) > 1 and kinds != ["token", "token_file"]:
        text = f"the engine takes one kind of credentials, found {' and '.join(kinds)}; keep one"
        yield _table("engine", *kinds, *_BASIC, text=text)
    yield from _oauth2(engine)


def _oauth2(engine: EngineSettings) -> Iterator[Problem]:
    secrets = [key for key in _CLIENT_SECRET if getattr(engine, key)]
    if not engine.oauth2_token_url:
        given = [key for key in _OAUTH2 if key in engine.model_fields_set]
        if given:
            text = "only goes with oauth2_token_url; set that, or remove this"
            yield _table("engine", given[0], "oauth2_token_url", text=text)
        return
    if not engine.oauth2_client_id:
        text = "a client is wanted too; set oauth2_client_id"
        yield _table("engine", "oauth2_token_url", "oauth2_client_id", text=text)
    if not secrets:
        text = "the client's secret is wanted too; set oauth2_client_secret_file"
        yield _table("engine", "oauth2_token_url", *_CLIENT_SECRET, text=text)
    elif len(secrets) > 1:
        text = "cannot stand beside oauth2_client_secret_file; keep one of them"
        yield _table("engine", *secrets, text=text)


def _broker(broker: BrokerSettings) -> Iterator[Problem]:
    yield from _credentials("broker", broker, needs_user=False)
    if "url" in broker.model_fields_set and "urls" in broker.model_fields_set:
        yield _table("broker", "url", "urls", text="cannot stand beside urls; keep one of them")
    elif "urls" in broker.model_fields_set and not broker.urls:
        yield _table("broker", "urls", text="at least one address is wanted; or remove the key")
    has_password = broker.password or broker.password_file
    urls = [urlsplit(url.get_secret_value()) for url in broker.urls or (broker.url,)]
    address = "urls" if broker.urls else "url"
    if has_password and not broker.username and not all(url.username for url in urls):
        key = "password" if broker.password else "password_file"
        yield _table("broker", key, address, text="a user is wanted too; set username")
    if not has_password and broker.username and {url.username for url in urls} != {broker.username}:
        text = "a password is wanted too; set password_file"
        yield _table("broker", "username", *_BASIC, address, text=text)
    elif not has_password and any(url.username and not url.password for url in urls):
        text = "this URL names a user without a password; set password_file"
        yield _table("broker", address, *_BASIC, text=text)


def _credentials(
    name: str, table: EngineSettings | BrokerSettings, *, needs_user: bool
) -> Iterator[Problem]:
    if table.password and table.password_file:
        text = "cannot stand beside password_file; keep one of them"
        yield _table(name, "password", "password_file", text=text)
    if table.client_key_file and not table.client_cert_file:
        text = "only goes with client_cert_file; set the certificate too"
        yield _table(name, "client_key_file", "client_cert_file", text=text)
    if not needs_user:
        return
    has_password = table.password or table.password_file
    if table.username and not has_password:
        text = "a password is wanted too; set password_file"
        yield _table(name, "username", *_BASIC, text=text)
    if has_password and not table.username:
        key = "password" if table.password else "password_file"
        yield _table(name, key, "username", text="a user is wanted too; set username")


def _times(topic: TopicSettings, broker: BrokerSettings) -> Iterator[Problem]:
    window, lease = topic.publish_window, topic.lease
    least = 2 * (broker.heartbeat + timedelta(seconds=5))
    if window <= least:
        keys = (_key(topic, "publish_window"), ("broker", "heartbeat"))
        yield Problem(
            keys,
            f"more than 2 x (broker.heartbeat + 5s) = {duration_text(least)} is wanted, "
            f"found {duration_text(window)}; a dead connection must be noticed within it",
        )
    for key, is_bad, rule in (
        (
            "lease",
            lease < 10 * window,
            f"at least 10 x publish_window = {duration_text(10 * window)}",
        ),
        (
            "lease_after",
            2 * topic.lease_after >= window,
            f"less than half of publish_window = {duration_text(window / 2)}",
        ),
        (
            "deadline",
            topic.deadline < 2 * lease,
            f"at least 2 x lease = {duration_text(2 * lease)}",
        ),
    ):
        if is_bad:
            found = duration_text(getattr(topic, key))
            other = "lease" if key == "deadline" else "publish_window"
            yield _topic(topic, key, other, text=f"{rule} is wanted, found {found}")


def _combinations(topic: TopicSettings, broker: BrokerSettings) -> Iterator[Problem]:
    if topic.celery_task and topic.reply not in ("celery", "none"):
        text = 'only goes with reply = "celery", or "none" if it never answers; set that'
        yield _topic(topic, "celery_task", "reply", text=f"{text}, or remove this")
    elif topic.reply == "celery" and not topic.celery_task:
        text = 'the name of the task is wanted with reply = "celery", such as "shop.tasks.pay"'
        yield _topic(topic, "celery_task", "reply", text=text)
    if not topic.exchange and topic.routing_key != topic.queue:
        text = "only goes with exchange; to name the queue, set queue and remove this"
        yield _topic(topic, "routing_key", "exchange", "queue", text=text)
    if topic.exchange in broker.names.exchanges:
        text = "this exchange is the bridge's own; choose another"
        yield _topic(topic, "exchange", text=text)
    if topic.without_tenant_id and topic.tenant_id_in:
        text = "cannot stand beside tenant_id_in (the engine would heed only that); keep one"
        yield _topic(topic, "without_tenant_id", "tenant_id_in", text=text)


def _names(topic: TopicSettings, broker: BrokerSettings) -> Iterator[Problem]:
    if not topic.name.isprintable() or not 1 <= len(topic.name) <= 255:
        text = "a topic's name has 1 to 255 characters and no control characters"
        yield Problem((("topics", topic.name),), text)
    if {"*", "#"} & set(topic.name.split(".")):
        text = "a topic's name with a word * or # would receive the results of others; rename it"
        yield Problem((("topics", topic.name),), text)
    if is_creatable(topic.queue) or (broker.declare != "missing" and topic.queue != topic.name):
        return
    if topic.queue == topic.name:
        text = (
            f"topic {topic.name!r} cannot name its queue ({_NAME_RULE}); "
            'set queue = "<name>" in its table'
        )
        yield Problem((("topics", topic.name), _key(topic, "queue")), text)
    else:
        yield _topic(topic, "queue", text=f"the name of a queue is wanted: {_NAME_RULE}")


def _collisions(settings: Settings) -> Iterator[Problem]:
    owners: dict[str, list[tuple[Key, str]]] = defaultdict(list)
    for name in settings.broker.names.queues:
        owners[name].append((("broker", "prefix"), "the bridge itself"))
    # Topics with a mapped queue come last: theirs is the key that somebody wrote.
    for topic in sorted(settings.topics.values(), key=lambda topic: topic.queue != topic.name):
        key = _key(topic, "queue")
        owners[topic.queue].append((key, f"tasks of topic {topic.name!r}"))
        owners[topic.result_queue].append((key, f"results of topic {topic.name!r}"))
    for queue, users in owners.items():
        if len(users) > 1:
            keys = tuple(key for key, _ in reversed(users))
            who = " and ".join(what for _, what in users)
            yield Problem(keys, f"queue {queue!r} would serve {who}; choose another queue")


def _key(topic: TopicSettings, key: str) -> Key:
    return ("topics", topic.name, key)


def _topic(topic: TopicSettings, *keys: str, text: str) -> Problem:
    return Problem(tuple(_key(topic, key) for key in keys), text)


def _table(table: str, *keys: str, text: str) -> Problem:
    return Problem(tuple((table, key) for key in keys), text)
