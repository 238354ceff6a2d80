"""`/why.json`: one key at a time is looked up, however many ask."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any

from bridge.status.server import NotAnswered

KEY_MAX = 255  # what an engine keeps of a business key


class Explained:
    """The document; `explain` gives it for a key, which costs some calls to engine and broker."""

    def __init__(self, explain: Callable[[str], Mapping[str, Any]]) -> None:
        self._explain = explain
        self._free = threading.Semaphore(1)

    def document(self, query: Mapping[str, str]) -> Mapping[str, Any]:
        """What is known of the query's `key`.  Raises NotAnswered."""
        key = query.get("key", "").strip()
        if not 0 < len(key) <= KEY_MAX:
            told = "key: a task id, a business key or a process instance id is wanted"
            raise NotAnswered(400, told)
        if not self._free.acquire(blocking=False):
            raise NotAnswered(503, "another key is being looked up; ask again in a moment")
        try:
            return self._explain(key)
        finally:
            self._free.release()
