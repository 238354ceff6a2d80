"""What became of a case.  Shapes only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Mark = Literal["passed", "failed", "not tried"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """One case: `detail` is what was seen, `advice` what mends it; both empty where it passed."""

    case: str
    mark: Mark
    seconds: float
    detail: str = ""
    advice: str = ""


class Failed(Exception):
    """The worker did something that would hurt; the text says what was seen, `advice` what mends it
    where the case's own advice does not.
    """

    def __init__(self, text: str, advice: str = "") -> None:
        super().__init__(text)
        self.advice = advice


class NotTried(Exception):
    """The case needs something that is not there; the text says what."""


class CannotRun(Exception):
    """There is nothing to judge: no broker, no worker, a queue in use."""
