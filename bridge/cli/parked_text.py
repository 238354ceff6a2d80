"""How parked messages are printed: as a table, whole, and as JSON."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bridge.cli.printing import ago, printable, table

if TYPE_CHECKING:
    from bridge.desk.parked_message import Parked, Shown


def table_of(found: Sequence[Parked]) -> str:
    rows = [
        (
            one.id,
            one.reason,
            one.topic or "-",
            one.task_id or "-",
            one.queue or "-",
            "-" if one.seconds is None else ago(one.seconds),
            str(one.size),
        )
        for one in found
    ]
    headings = ("ID", "REASON", "TOPIC", "TASK", "CAME FROM", "AGE", "BYTES")
    return table(headings, rows, right=("AGE", "BYTES"))


def none_of(total: int, reason: str | None, topic: str | None) -> str:
    """Where nothing is to be listed: of how many nothing was wanted."""
    if not total:
        return "nothing is parked"
    wanted = [f"of topic {topic}"] if topic is not None else []
    wanted += [f"with reason {reason}"] if reason is not None else []
    return printable(f"none {' '.join(wanted)}; {total} in all")


def shown(found: Shown, *, with_body: bool) -> str:
    properties = {**found.properties, **{f"header {k}": v for k, v in found.headers.items()}}
    lines = [table_of((found.parked,)), ""]
    lines += [f"why: {printable(found.detail)}", ""] if found.detail else []
    lines.append(table(("PROPERTY", "VALUE"), [(k, str(v)) for k, v in properties.items()]))
    if with_body:
        text = found.body.decode(errors="backslashreplace")
        lines += ["", printable(text, lines=True)]
    return "\n".join(lines)


def list_document(queue: str, found: Sequence[Parked]) -> dict[str, Any]:
    messages = [parked_document(one) for one in found]
    return {"schemaVersion": 1, "queue": queue, "messages": messages}


def parked_document(one: Parked) -> dict[str, Any]:
    return {
        "id": one.id,
        "reason": one.reason,
        "topic": one.topic,
        "taskId": one.task_id,
        "queue": one.queue,
        "ageSeconds": None if one.seconds is None else round(one.seconds, 3),
        "bytes": one.size,
    }


def show_document(found: Shown, *, with_body: bool) -> dict[str, Any]:
    document = {
        "schemaVersion": 1,
        **parked_document(found.parked),
        "detail": found.detail,
        "properties": _plain(found.properties),
        "headers": _plain(found.headers),
    }
    if with_body:
        try:
            document["body"] = found.body.decode()
        except UnicodeDecodeError:
            document["bodyBase64"] = base64.b64encode(found.body).decode()
    return document


def _plain(value: Any) -> Any:
    """What JSON can hold; dates and decimals in their usual text."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return value.decode(errors="backslashreplace")
    if isinstance(value, float) and math.isfinite(value):
        return value
    return value if isinstance(value, str | int | bool | None) else str(value)


def many(found: Sequence[Parked]) -> str:
    return "1 message" if len(found) == 1 else f"{len(found)} messages"
