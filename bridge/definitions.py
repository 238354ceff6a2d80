"""What the bridge needs of RabbitMQ as a definitions file (https://www.rabbitmq.com/docs/definitions).

For brokers whose queues an administrator declares: imported once, or at each start of a node.  Has
users only where there are files with their passwords, of which it writes a salted hash: an import
replaces the password of a user who is there already.  Connects to nothing.
"""

from __future__ import annotations

import base64
import hashlib
import secrets
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bridge import permissions, plan
from bridge.broker import Exchange, Queue
from bridge.errors import SettingsError
from bridge.permissions import User
from bridge.settings import Settings

_SALT_BYTES = 4  # https://www.rabbitmq.com/docs/passwords#computing-password-hash
_HASHING = "rabbit_password_hashing_sha256"

Objects = list[dict[str, Any]]


def definitions(
    settings: Settings, *, passwords: Path | None = None, gone_notices: bool = False
) -> dict[str, Objects]:
    """The virtual host, every exchange, queue and binding that the bridge would declare, and with
    `passwords` the users of `permissions` with their rights.

    `passwords` is a folder with a file for each user, named as the lines of `permissions` name it.
    Raises SettingsError where one is missing or empty, and as `permissions.users` does.
    """
    vhost = permissions.vhost(settings.broker)
    parts = plan.topology(settings)
    queues = [part for part in parts if isinstance(part, Queue)]
    exchanges = [part for part in parts if isinstance(part, Exchange)]
    made: dict[str, Objects] = {
        "vhosts": [{"name": vhost}],
        # One without a type is somebody else's.
        "exchanges": [_exchange(part, vhost) for part in exchanges if part.type is not None],
        "queues": [_queue(part, vhost) for part in queues],
        "bindings": [binding for part in queues for binding in _bindings(part, vhost)],
    }
    if passwords is not None:
        users = permissions.users(settings, gone_notices=gone_notices)
        made |= _users(users, vhost, passwords)
    return made


def password_hash(password: str, salt: bytes) -> str:
    """As RabbitMQ keeps it: salt and SHA-256 of salt and password, in Base64."""
    digest = hashlib.sha256(salt + password.encode()).digest()
    return base64.b64encode(salt + digest).decode()


def _exchange(part: Exchange, vhost: str) -> dict[str, Any]:
    return {
        "name": part.name,
        "vhost": vhost,
        "type": part.type,
        "durable": True,
        "auto_delete": False,
        "internal": False,
        "arguments": {},
    }


def _queue(part: Queue, vhost: str) -> dict[str, Any]:
    return {
        "name": part.name,
        "vhost": vhost,
        "durable": True,
        "auto_delete": False,
        "arguments": dict(part.arguments),
    }


def _bindings(part: Queue, vhost: str) -> Iterable[dict[str, Any]]:
    for source, key in part.bindings:
        yield {
            "source": source,
            "vhost": vhost,
            "destination": part.name,
            "destination_type": "queue",
            "routing_key": key,
            "arguments": {},
        }


def _users(users: Iterable[User], vhost: str, folder: Path) -> dict[str, Objects]:
    users = list(users)
    hashes = _hashes(permissions.password_files(users), folder)
    return {
        "users": [
            {
                "name": user.name,
                "password_hash": hashes[user.name],
                "hashing_algorithm": _HASHING,
                "tags": [],
            }
            for user in users
        ],
        "permissions": [
            {
                "user": user.name,
                "vhost": vhost,
                "configure": user.configure,
                "write": user.write,
                "read": user.read,
            }
            for user in users
        ],
        "topic_permissions": [
            {
                "user": user.name,
                "vhost": vhost,
                "exchange": right.exchange,
                "write": right.write,
                "read": right.read,
            }
            for user in users
            for right in user.topic_permissions
        ],
    }


def _hashes(files: dict[str, str], folder: Path) -> dict[str, str]:
    hashes, problems = {}, []
    for user, file in files.items():
        try:
            password = (folder / file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeError) as error:
            password = ""
            why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        else:
            why = "it is empty"
        if password:
            hashes[user] = password_hash(password, secrets.token_bytes(_SALT_BYTES))
        else:
            problems.append(
                f"--passwords: {file!r}, the password of user {user!r}, cannot be used ({why}); "
                f"write one: openssl rand -base64 24 > {file}"
            )
    if problems:
        raise SettingsError(tuple(problems))
    return hashes
