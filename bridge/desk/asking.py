"""How the desk asks the engine and a running replica, and what it says where one is silent."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from typing import Any
from urllib.parse import urlencode

from bridge import plan
from bridge.engine.auth import SecretUnusable, SignInUnavailable
from bridge.engine.records import EngineRecords
from bridge.errors import (
    BridgeError,
    EngineError,
    EngineForbidden,
    EngineMisconfigured,
    EngineUnauthorized,
)
from bridge.settings import EngineSettings, Settings

REPLICA_SECONDS = 3.0
REPLICA_TASKS_MAX = 500  # what /tasks.json tells of one topic, oldest first

# (path such as "tasks.json", query) -> the JSON object.  Raises ReplicaSilent.
Ask = Callable[[str, Mapping[str, str]], Mapping[str, Any]]


class ReplicaSilent(BridgeError):
    """No bridge answers where the settings say that one does; the text says where and the cure."""


@dataclass(frozen=True)
class Replica:
    """One running bridge, by its status address.  Only what it holds itself: peers do not tell."""

    ask: Ask

    def status(self) -> Mapping[str, Any]:
        """What `/status.json` says.  Raises ReplicaSilent."""
        return self.ask("status.json", {})

    def problems(self) -> dict[str, str]:
        """What keeps it from carrying tasks, by part.  Raises ReplicaSilent."""
        return told_problems(self.status())

    def task(self, task_id: str) -> Mapping[str, Any] | None:
        """This task in its memory; None where it does not hold it.  Raises ReplicaSilent."""
        return next(iter(_entries(self.ask("tasks.json", {"task": task_id}))), None)

    def tasks(self, topic: str | None = None) -> dict[str, Mapping[str, Any]]:
        """Up to REPLICA_TASKS_MAX of what it holds, by task id.  Raises ReplicaSilent."""
        query = {} if topic is None else {"topic": topic}
        found = _entries(self.ask("tasks.json", query))
        return {str(entry.get("taskId")): entry for entry in found}


def told_problems(status: Mapping[str, Any]) -> dict[str, str]:
    """What a `/status.json` says keeps the bridge from carrying tasks, by part."""
    return {str(part): str(why) for part, why in (status.get("problems") or {}).items()}


def engine_records(settings: Settings) -> EngineRecords:
    """The engine's records; connects with the first question."""
    return EngineRecords(plan.http_options(settings.engine))


def replica(settings: Settings) -> Replica:
    """The bridge that these settings run, over its status address."""
    return Replica(lambda path, query: _asked(settings, path, query))


def unreachable(error: EngineError, engine: EngineSettings) -> str:
    """One sentence: what is wrong with the engine, where, and the cure."""
    match error:
        case SecretUnusable():
            return str(error)  # names the key and the cure
        case SignInUnavailable():
            cure = "start the authorization server, or correct [engine] oauth2_token_url"
        case EngineUnauthorized():
            cure = "correct the credentials in [engine]"
        case EngineForbidden():
            cure = "give the user of [engine] that right"
        case EngineMisconfigured():
            cure = "correct [engine] url"
        case _:
            cure = "start the engine, or correct [engine] url"
    return f"the engine at {engine.url}: {error.brief}; {cure}"


def status_address(settings: Settings) -> str | None:
    """Where the bridge's status can be asked for, such as `127.0.0.1:9464`; None: nowhere."""
    address = settings.status.address
    if address is None or address.port == 0:
        return None
    own = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (compared only)
    host = own.get(address.host, address.host)
    return f"[{host}]:{address.port}" if ":" in host else f"{host}:{address.port}"


def _asked(settings: Settings, path: str, query: Mapping[str, str]) -> Mapping[str, Any]:
    address = status_address(settings)
    if address is None:
        raise ReplicaSilent("status.listen names no fixed port, so the bridge cannot be asked")
    target = f"/{path}?{urlencode(query)}" if query else f"/{path}"
    connection = HTTPConnection(address, timeout=REPLICA_SECONDS)
    try:
        connection.request("GET", target)
        answer = connection.getresponse()
        document = json.loads(answer.read()) if answer.status == 200 else None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "strerror", None) or type(error).__name__
        raise ReplicaSilent(f"no bridge answers at http://{address}: {reason}") from error
    finally:
        connection.close()
    if not isinstance(document, dict):
        raise ReplicaSilent(f"what answers at http://{address} is no bridge of this version")
    return document


def _entries(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = document.get("tasks")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []
