"""What the engine says to a bridge with these settings.  Asks only: locks nothing, sets nothing.

Every call is tried once and bounded to a few seconds; the first that fails for good ends the look.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from difflib import get_close_matches
from typing import Any
from urllib.parse import unquote, urlencode

from bridge import plan, tls
from bridge.check import versions
from bridge.check.advice import has_credentials
from bridge.check.findings import Finding, ok, problem, warning
from bridge.engine import EngineClock
from bridge.engine.auth import SecretUnusable, SignInUnavailable
from bridge.engine.http import EngineHttp
from bridge.errors import (
    EngineError,
    EngineForbidden,
    EngineMisconfigured,
    EngineUnauthorized,
    EngineUnavailable,
)
from bridge.settings import EngineSettings, Settings, TopicSettings

CONNECT_SECONDS = 3.0
READ_SECONDS = 5.0
# Before this version a task does not say when it was created, and none is adopted.
CREATE_TIME_SINCE = (7, 21)
PROCESS_DEFINITION, PROCESS_INSTANCE = 6, 8
LOCKED_MAX = 200

_NAMED_ENGINE = re.compile(r"(.*)/engine/([^/]+)")


class _Engine:
    """GET and POST, each tried once.  Raises EngineError."""

    def __init__(self, settings: EngineSettings, url: str | None = None) -> None:
        options = plan.http_options(settings)
        bounded = replace(
            options,
            url=options.url if url is None else url,
            connect_timeout=min(options.connect_timeout, CONNECT_SECONDS),
            read_timeout=min(options.read_timeout, READ_SECONDS),
        )
        self.clock = EngineClock()
        self._http = EngineHttp(bounded, self.clock, threading.Event())

    def get(self, path: str, **query: str | int) -> Any:
        return self._ask("GET", f"{path}?{urlencode(query)}" if query else path)

    def count(self, **filters: Any) -> int:
        """How many external tasks the filters of the engine's query match."""
        answer = self._ask("POST", "/external-task/count", filters)
        return int(_member(answer, "count", int))

    def tasks(self, **filters: Any) -> list[Any]:
        """The first external tasks that the filters match."""
        answer = self._ask("POST", f"/external-task?maxResults={LOCKED_MAX}", filters)
        return answer if isinstance(answer, list) else []

    def _ask(self, method: str, path: str, body: Any = None) -> Any:
        answer = self._http.once(method, path, body)
        try:
            return json.loads(answer.body)
        except ValueError:
            raise _not_an_engine() from None


def look(settings: Settings) -> Iterator[Finding]:
    """Everything about the engine, then about each topic in it."""
    try:
        # One engine locks a user out after some wrong passwords in a row: the first 401 ends it.
        yield from _look(settings)
    except EngineError as error:
        yield _unusable(error, settings.engine)


def _look(settings: Settings) -> Iterator[Finding]:
    unknown = _unknown_name(settings.engine)
    if unknown is not None:
        yield unknown
        return
    engine = _Engine(settings.engine)
    version = str(_member(engine.get("/version"), "version", str))
    yield ok("engine", f"{settings.engine.url}: {_product(engine)} {version}")
    if settings.engine.oauth2_token_url is not None:
        yield ok("engine", f"{settings.engine.oauth2_token_url} gives a token that it takes")
    yield from _old_version(version)
    yield _clock(engine.clock)
    findings = list(_topics(engine, settings))  # before the rights: it tells whether we may ask
    yield from _rights(engine, settings)
    yield from _namesakes(engine, settings)
    yield from findings


def _unknown_name(settings: EngineSettings) -> Finding | None:
    """An engine without authentication answers /version for a name that it does not know."""
    named = _NAMED_ENGINE.fullmatch(settings.url)
    if named is None:
        return None
    try:
        answer = _Engine(settings, named[1]).get("/engine")
    except EngineError:
        return None  # the look itself meets the same and says it better
    names = [str(_member(engine, "name", str)) for engine in answer]
    name = unquote(named[2])
    if name in names:
        return None
    near = get_close_matches(name, names, n=1) or names[:1]
    cure = f"did you mean {named[1]}/engine/{near[0]}?" if near else f"use {named[1]}"
    return problem("engine", "engine.url", f"there is no engine named {name!r}", cure)


def _product(engine: _Engine) -> str:
    try:
        product = engine.get("/telemetry/data")["product"]["name"]
    except (EngineError, KeyError, TypeError):
        return "Camunda 7 API, version"  # not every engine tells, and not everyone
    return str(product).removesuffix(" Runtime")


def _old_version(version: str) -> Iterator[Finding]:
    # Operaton and CIB seven count from 1 and have had it from the start.
    if (7,) <= versions.numbers(version) < CREATE_TIME_SINCE:
        text = f"{version} does not tell when a task was created, so none is adopted after a crash"
        cure = "use 7.21 or later, or expect what is in flight to be published again"
        yield warning("engine", "engine.url", text, cure)


def _clock(clock: EngineClock) -> Finding:
    ahead = round(clock.now() - time.time())
    side = "ahead of" if ahead > 0 else "behind"
    says = "agrees with" if abs(ahead) <= 1 else f"is {abs(ahead)} s {side}"
    return ok("engine", f"its clock {says} this machine's (the bridge goes by the engine's)")


def _rights(engine: _Engine, settings: Settings) -> Iterator[Finding]:
    """Without rights an engine hides tasks instead of refusing: a count of 0 proves nothing."""
    if not has_credentials(settings.engine):
        return
    try:
        if _may(engine, "*"):
            yield ok("engine", "the user may read and update the instances of every process")
            return
        for name, topic in settings.topics.items():
            yield from _topic_rights(engine, name, topic)
    except EngineError:
        # 401 here: the engine itself knows no user, whoever stands in front of it does.
        text = "the credentials are accepted, or not asked for; rights cannot be asked for here"
        yield ok("engine", text)


def _topic_rights(engine: _Engine, name: str, topic: TopicSettings) -> Iterator[Finding]:
    one = (topic.process_definition_key,) if topic.process_definition_key else ()
    keys = (*one, *(topic.process_definition_key_in or ()))
    cure = (
        "give it READ_INSTANCE and UPDATE_INSTANCE on the process definitions "
        "(or READ and UPDATE on process instances)"
    )
    forbidden = [key for key in keys if not _may(engine, key)]
    if forbidden:
        text = f"the user may not read and update instances of {', '.join(forbidden)}"
        yield problem("engine", f"topics.{name}.process_definition_key", text, cure)
    elif not keys:
        text = f"topic {name}: the user has no right to the instances of every process"
        yield warning("engine", "engine.username", text, f"{cure} whose tasks it shall see")


def _may(engine: _Engine, definition_key: str) -> bool:
    """Whether the user may fetch and finish tasks of a process definition ("*": of any)."""

    def granted(right: str, kind: str, number: int, resource_id: str) -> bool:
        answer = engine.get(
            "/authorization/check",
            permissionName=right,
            resourceName=kind,
            resourceType=number,
            resourceId=resource_id,
        )
        return bool(_member(answer, "authorized", bool))

    return all(
        granted(f"{right}_INSTANCE", "ProcessDefinition", PROCESS_DEFINITION, definition_key)
        or granted(right, "ProcessInstance", PROCESS_INSTANCE, "*")
        for right in ("READ", "UPDATE")
    )


def _namesakes(engine: _Engine, settings: Settings) -> Iterator[Finding]:
    held = engine.tasks(workerId=settings.worker_id, locked=True)
    topics = {str(_member(task, "topicName", str)) for task in held} - set(settings.topics)
    if topics:
        text = (
            f"{settings.worker_id!r} also holds tasks of {', '.join(sorted(topics))}, "
            "which are no topics here"
        )
        cure = "give each deployment a worker_id of its own"
        yield warning("engine", "worker_id", text, cure)


def _topics(engine: _Engine, settings: Settings) -> Iterator[Finding]:
    known = [name for name in engine.get("/external-task/topic-names") if isinstance(name, str)]
    for name in settings.topics:
        waiting = engine.count(topicName=name, notLocked=True, withRetriesLeft=True, active=True)
        held = engine.count(topicName=name, locked=True, workerId=settings.worker_id)
        locked = engine.count(topicName=name, locked=True)
        failed = engine.count(topicName=name, noRetriesLeft=True)
        text = f"{name}: in the engine {waiting} waiting, {held} held by this worker_id"
        text += f", {locked - held} by others" if locked > held else ""
        text += f", {failed} without retries" if failed else ""
        yield ok("topics", text, f"topics.{name}")
        others = [other for other in known if other not in settings.topics]
        near = [] if name in known else get_close_matches(name, others, n=1, cutoff=0.8)
        if near:
            text = f"the engine has no task of this topic, but has tasks of {near[0]!r}"
            yield warning("topics", f"topics.{name}", text, "is the name spelt as in the model?")


def _unusable(error: EngineError, engine: EngineSettings) -> Finding:
    key, cure, text = "engine.url", "start the engine, or correct the address", str(error)
    match error:
        case SecretUnusable():
            key, text, cure = error.key, error.what, error.cure
        case SignInUnavailable():
            key, text, cure = _sign_in_away(error)
        case EngineUnauthorized() if not has_credentials(engine):
            key, cure = "engine.username", "set username and password_file, or token_file"
        case EngineUnauthorized() | EngineForbidden():
            key, cure = _credentials_key(engine), "correct the credentials or the user's rights"
        case EngineMisconfigured():
            cure = "correct the address"
        case EngineUnavailable() if refusal := tls.explain(str(error.__cause__)):
            key, text, cure = f"engine.{refusal.key}", f"TLS: {refusal.text}", refusal.cure
        case EngineUnavailable() if "reset by peer" in text and engine.url.startswith("http:"):
            cure = "correct the address; it may want https://"
        case _:
            pass
    return problem("engine", key, text, cure)


def _sign_in_away(error: SignInUnavailable) -> tuple[str, str, str]:
    refusal = tls.explain(str(error.__cause__))
    if refusal is None:
        cure = "start the authorization server, or correct the address"
        return "engine.oauth2_token_url", str(error), cure
    key = "oauth2_token_url" if refusal.key == "url" else refusal.key
    return f"engine.{key}", f"authorization server: TLS: {refusal.text}", refusal.cure


def _credentials_key(engine: EngineSettings) -> str:
    for key in ("username", "token", "token_file", "oauth2_client_id"):
        if getattr(engine, key) is not None:
            return f"engine.{key}"
    return "engine.headers"


def _member(answer: Any, name: str, kind: type) -> Any:
    value = answer.get(name) if isinstance(answer, dict) else None
    if not isinstance(value, kind):
        raise _not_an_engine()
    return value


def _not_an_engine() -> EngineMisconfigured:
    return EngineMisconfigured("what answers there is not an engine's REST API")
