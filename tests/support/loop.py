"""A step that is called again and again in a thread, as long as a `with` block lasts."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Self


class Loop:
    """A thread that calls `step` until it is left; what it raises is raised again on leaving.

    `step` returns the seconds until the next one, or None where it was the last.  One that takes
    long looks at `stopping`; leaving waits for it, `patience` seconds at most.
    """

    def __init__(self, name: str, step: Callable[[], float | None], patience: float = 60) -> None:
        self.stopping = threading.Event()
        self._step, self._patience = step, patience
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.stopping.set()
        self._thread.join(self._patience)
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        try:
            while not self.stopping.is_set():
                pause = self._step()
                if pause is None:
                    return
                self.stopping.wait(pause)
        except Exception as error:  # noqa: BLE001 (raised again where the test can see it)
            self._error = error
