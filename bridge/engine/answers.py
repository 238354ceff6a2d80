"""One classifier for every answer of the engine.  Decides what an answer means; sends nothing.

The engine tells its refusals apart by text more than by status: a suspended instance, a foreign
lock and an expired one are all 400 `RestException`; a 500 is an optimistic-locking conflict
(code 1), a deadlock (10000, 10001) or a value too long for its column (10002).  Status codes and
texts: `ExternalTaskRestService`, `ExceptionHandlerHelper` and `BuiltinExceptionCode` of
Camunda 7.24, the same in Operaton.
"""

from __future__ import annotations

import json
import re
from typing import Any

from bridge.errors import (
    EngineBroken,
    EngineConflict,
    EngineError,
    EngineForbidden,
    EngineMisconfigured,
    EngineRefused,
    EngineUnauthorized,
    EngineUnavailable,
    LockExpired,
    LockLost,
    TaskGone,
    TaskSuspended,
)

CONFLICT_CODES = frozenset({1, 10000, 10001})
COLUMN_SIZE_CODE = 10002
BUSY_STATUSES = frozenset({408, 429, 502, 503, 504})
MESSAGE_MAX = 500

_OWNER = re.compile(r"It is locked by worker '(.*)'", re.DOTALL)
_BUSY_TEXTS = ("too many requests", "due to shutdown")


def classify(status: int, body: bytes, retry_after: str | None = None) -> EngineError | None:
    """What the caller has to do about an answer; None: the engine has carried the call out.

    A 200 with anything but JSON is a page of a proxy, mostly a login: nothing was carried out.
    """
    if 200 <= status < 300:
        return None if _nothing_or_json(body) else _not_the_engines(status)
    answer = _json_object(body)
    if status == 401:
        return EngineUnauthorized("401: the engine does not accept the credentials")
    if status in BUSY_STATUSES:
        later = float(retry_after) if retry_after and retry_after.isdecimal() else 0.0
        return EngineUnavailable(f"{status}: the engine is busy or away", retry_after=later)
    if status == 413:
        return EngineRefused("413: too large for the engine, or for a proxy on the way")
    if answer is None or "type" not in answer:
        return _without_type(status)
    text = f"{status} {answer.get('type')}: {_message(answer)}"[:MESSAGE_MAX]
    if status == 403:
        return EngineForbidden(text)
    if status == 404:
        return EngineMisconfigured(text) if _no_such_path(answer) else TaskGone(text)
    if status == 400:
        return _bad_request(text)
    if status >= 500:
        return _server_error(text, answer.get("code"))
    return EngineMisconfigured(text)


def _bad_request(text: str) -> EngineError:
    if "No process engine available" in text:
        return EngineMisconfigured(text)  # the name behind /engine/ in the address
    if "is suspended" in text:
        return TaskSuspended(text)
    if "Cannot extend a lock that expired" in text:
        return LockExpired(text)
    owner = _OWNER.search(text)
    if owner is not None:
        return LockLost(text, None if owner[1] == "null" else owner[1])
    return EngineRefused(text)


def _server_error(text: str, code: Any) -> EngineError:
    if isinstance(code, int) and code in CONFLICT_CODES:
        return EngineConflict(text)
    if code == COLUMN_SIZE_CODE:
        return EngineRefused(text)
    if any(busy in text for busy in _BUSY_TEXTS):
        return EngineUnavailable(text)
    return EngineBroken(text)


def _without_type(status: int) -> EngineError:
    """No answer of the engine's own, which names the type of its exception: a proxy's, mostly."""
    if status == 400:  # which mapper answers to a mistyped member differs between starts
        return EngineRefused("400 without a reason: the request cannot be read")
    if status == 403:
        return EngineForbidden("403: refused on the way to the engine")
    if status >= 500:
        return EngineUnavailable(f"{status}, but not the engine's own answer")
    return _not_the_engines(status)


def _not_the_engines(status: int) -> EngineMisconfigured:
    return EngineMisconfigured(
        f"{status}, but not the engine's own answer: is [engine] url the address of the REST API "
        "(it mostly ends in /engine-rest)?"
    )


def _no_such_path(answer: dict[str, Any]) -> bool:
    # A path that the REST API does not know, or an unknown named engine.
    return answer.get("type") == "NotFoundException" or "Process engine" in _message(answer)


def _nothing_or_json(body: bytes) -> bool:
    # Its form alone: what it says is read, and judged, by whoever asked for it.
    return body.lstrip()[:1] in (b"", b"{", b"[")


def _json_object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return answer if isinstance(answer, dict) else None


def _message(answer: dict[str, Any]) -> str:
    return str(answer.get("message") or answer.get("error") or "")
