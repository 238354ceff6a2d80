"""From the message of a worker to the result it means.  Pure: no I/O, no clock.

`read` raises ResultRefused and nothing else, whatever bytes and headers it is given.  The contract
is in consumers/README.md, "Outcomes"; a profile adapts the answers of stacks with their own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import ValidationError
from pydantic_core import from_json

from bridge.errors import ResultRefused
from bridge.messages import (
    BpmnError,
    CeleryResult,
    Complete,
    Delivery,
    ExtendLock,
    Failure,
    Result,
    Unlock,
)

Profile = Literal["json", "celery", "spring", "none"]

VERBS: dict[str, type[Complete | Failure | BpmnError | ExtendLock | Unlock]] = {
    "complete": Complete,
    "failure": Failure,
    "bpmnError": BpmnError,
    "extendLock": ExtendLock,
    "unlock": Unlock,
}
OUTCOME_HEADER = "outcome"
OUTCOME_MEMBER = "$outcome"
_NOTHING = object()
MAX_VALUES = 500_000


@dataclass(frozen=True, slots=True)
class ReplyRules:
    """How one topic's results are read."""

    profile: Profile = "json"
    result_variable: str | None = None
    local: bool = False
    max_bytes: int = 16 * 1024 * 1024


def read(delivery: Delivery, rules: ReplyRules) -> Result:
    """What the worker means.  Raises ResultRefused with the reason for the parked message."""
    if len(delivery.body) > rules.max_bytes:
        raise ResultRefused("too-large", f"{len(delivery.body)} bytes, allowed {rules.max_bytes}")
    if rules.profile == "celery":
        return _celery(_parsed(delivery.body), rules)
    if rules.profile == "spring":
        return _spring(delivery, rules)
    return _json(_parsed(delivery.body), delivery.headers, rules)


def _json(body: Any, headers: Mapping[str, Any], rules: ReplyRules) -> Result:
    outcome = headers.get(OUTCOME_HEADER)
    if outcome is None and isinstance(body, dict) and OUTCOME_MEMBER in body:
        outcome = body[OUTCOME_MEMBER]
        body = {name: value for name, value in body.items() if name != OUTCOME_MEMBER}
    if outcome is None:
        return _plain(body, rules)
    verb = VERBS.get(outcome) if isinstance(outcome, str) else None
    if verb is None:
        raise ResultRefused("bad-outcome", f"outcome is none of {', '.join(VERBS)}")
    return _request(verb, {} if body is _NOTHING else body)


def _request(verb: type[Complete | Failure | BpmnError | ExtendLock | Unlock], body: Any) -> Result:
    if not isinstance(body, dict):
        raise ResultRefused("bad-body", f"the body of {verb.__name__} is not a JSON object")
    try:
        return verb.model_validate(body, by_alias=True, by_name=False)
    except ValidationError as error:
        faults = {".".join(map(str, e["loc"])): e["msg"] for e in error.errors()}
        raise ResultRefused("bad-body", f"{verb.__name__}: {faults}") from None


def _plain(body: Any, rules: ReplyRules) -> Complete:
    """A JSON object, or no body: the variables.  Any other value: the topic's result_variable."""
    if body is _NOTHING:
        variables: dict[str, Any] = {}
    elif isinstance(body, dict):
        variables = body
    elif rules.result_variable is not None:
        variables = {rules.result_variable: body}
    else:
        raise ResultRefused(
            "no-result-variable",
            "the body is not a JSON object, and the topic names no result_variable for it",
        )
    if rules.local:
        return Complete(local_variables=variables)
    return Complete(variables=variables)


def _celery(body: Any, rules: ReplyRules) -> Result:
    """The result message of Celery's rpc:// backend.  What a task returned is read like a `json`
    body; any state that does not end it, the application's own included, keeps it alive.
    """
    try:
        answer = CeleryResult.model_validate(body)
    except ValidationError:
        raise ResultRefused("bad-body", "not a result message of Celery") from None
    status, result = answer.status, _plain_values(answer.result)
    if status == "SUCCESS":
        return _json(_NOTHING if result is None else result, {}, rules)
    if status not in ("FAILURE", "REVOKED"):
        return ExtendLock()
    return Failure(
        error_message=_celery_error(result) or status,
        error_details=answer.traceback if isinstance(answer.traceback, str) else None,
    )


def _plain_values(value: Any) -> Any:
    """Kombu writes what JSON has no word for (Decimal, dates, UUID, bytes) as a type and a text."""
    if isinstance(value, list):
        return [_plain_values(item) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"__type__", "__value__"}:
        text = value["__value__"]
        return text["hex"] if isinstance(text, dict) and text.keys() == {"hex"} else text
    return {name: _plain_values(item) for name, item in value.items()}


def _celery_error(result: Any) -> str:
    if not isinstance(result, dict):
        return ""
    message, kind = result.get("exc_message"), result.get("exc_type")
    text = ", ".join(map(str, message)) if isinstance(message, list) else str(message or "")
    return ": ".join(str(part) for part in (kind, text) if part)


def _spring(delivery: Delivery, rules: ReplyRules) -> Result:
    """What an @RabbitListener method returned: JSON, or text where no JSON converter is set."""
    content_type = delivery.content_type or ""
    if content_type.startswith("application/x-java-serialized-object"):
        return Failure(
            error_message="the listener answered with a serialized Java object; "
            "give its application a JSON message converter"
        )
    if content_type.startswith("text/"):
        return _json(_text(delivery.body), delivery.headers, rules)
    body = _parsed(delivery.body)
    thrown = _spring_exception(body)
    return _json(body, delivery.headers, rules) if thrown is None else thrown


def _spring_exception(body: Any) -> Failure | None:
    """A RemoteInvocationResult with an exception (`returnExceptions = "true"`).  No header tells:
    its `__TypeId__` is the type that the method would have returned.
    """
    if not isinstance(body, dict) or body.keys() != {"value", "exception"}:
        return None
    thrown = body["exception"]
    if not isinstance(thrown, dict) or not isinstance(thrown.get("stackTrace"), list):
        return None
    message = thrown.get("message")
    return Failure(
        error_message=str(message or "the listener threw an exception without a message"),
        error_details="\n".join(_java_stack(thrown)),
    )


def _java_stack(thrown: Any) -> Iterator[str]:
    while isinstance(thrown, dict):
        yield str(thrown.get("message"))
        frames = thrown.get("stackTrace")
        for frame in frames if isinstance(frames, list) else ():
            if isinstance(frame, dict):
                place = f"{frame.get('className')}.{frame.get('methodName')}"
                yield f"    at {place}({frame.get('fileName')}:{frame.get('lineNumber')})"
        thrown = thrown.get("cause")
        if thrown:
            yield "Caused by:"


def _text(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise ResultRefused("bad-json", "the body is not UTF-8") from None


def _parsed(body: bytes) -> Any:
    if not body.strip():
        return _NOTHING
    # While a body is parsed nothing else runs in this process: a million values would hold up the
    # heartbeats of its connections, and come again to the next replica.  Each follows one of these.
    if len(body) > MAX_VALUES and sum(map(body.count, (b",", b"[", b"{"))) > MAX_VALUES:
        raise ResultRefused("too-large", f"more than {MAX_VALUES} values (or commas and brackets)")
    try:
        return from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ResultRefused("bad-json", str(error).splitlines()[0]) from None
