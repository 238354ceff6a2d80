"""When workers had their tasks: reads what a telling worker or client has printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Receipt:
    """One task's way to its worker: where it came, and how long (ms) after its creation."""

    queue: str
    at_ms: float
    took_ms: float


def receipts(told: Path) -> list[Receipt]:
    """The receipts so far, in their order; other lines are none."""
    found = []
    for line in told.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.count("\t") >= 2 and line.endswith("\n"):
            queue, at, body = line.split("\t", 2)
            created = datetime.fromisoformat(json.loads(body)["createTime"]).timestamp() * 1000
            found.append(Receipt(queue, float(at), float(at) - created))
    return found


def waits(found: Sequence[Receipt], queue: str, *, skip: int = 0) -> list[float]:
    """Milliseconds from creation to receipt of a queue's tasks, but for the first `skip`."""
    return [receipt.took_ms for receipt in found if receipt.queue == queue][skip:]
