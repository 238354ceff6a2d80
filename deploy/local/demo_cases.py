"""The demo's cases: what is started, how each ought to end, and whether it did.

No I/O: the engine's history comes in as stories, one for each process instance.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle, islice

TOPICS = {
    "external-task-demo": "demo-worker",
    "payment": "payment-processing",
    "credit-check": "creditScoreChecker",
    "transcode": "transcodeVideo",
}
ATTEMPTS = 3
"""The topics' `retries`: a task that fails so often ends as an incident."""


@dataclass(frozen=True)
class Ending:
    """How an instance stands: what it passed, what was written, what went wrong on the way."""

    end: str | None = None
    """The end event reached; None while the instance has not ended."""
    boundary: str | None = None
    failures: int = 0
    incident: bool = False
    variables: frozenset[str] = frozenset()
    """Names of the variables that workers write."""


@dataclass(frozen=True)
class Case:
    """One kind of instance."""

    title: str
    process: str
    variables: Mapping[str, str | int]
    ending: Ending


@dataclass(frozen=True)
class Row:
    """One line of the final table: counts, all from the engine's history."""

    title: str
    started: int
    as_intended: int
    finished: int
    boundary: int
    retried: int
    incidents: int
    progress: int


def _wrote(*names: str) -> frozenset[str]:
    return frozenset(names)


DEMO = Case(
    "external-task-demo",
    "external-task-demo",
    {"demoInput": "hello"},
    Ending("answered", variables=_wrote("demoOutput")),
)
PAID = Case(
    "payment, paid",
    "payment",
    {"amount": 250, "currency": "EUR"},
    Ending("paid", variables=_wrote("paymentStatus")),
)
REFUSED = Case(
    "payment, refused",
    "payment",
    {"amount": 2500, "currency": "EUR"},
    Ending("refused", boundary="payment-refused"),
)
RETRIED = Case(
    "payment, retried",
    "payment",
    {"amount": 502, "currency": "EUR"},
    Ending("paid", failures=1, variables=_wrote("paymentStatus")),
)
STUCK = Case(
    "payment, stuck",
    "payment",
    {"amount": 503, "currency": "EUR"},
    Ending(failures=ATTEMPTS, incident=True),
)
CREDIT = Case(
    "credit-check",
    "credit-check",
    {"customer": "Ada Lovelace"},
    Ending("checked", variables=_wrote("creditScore")),
)
VIDEO = Case(
    "transcode",
    "transcode",
    {"video": "holiday"},
    Ending("transcoded", variables=_wrote("progress", "transcodedVideo")),
)
CASES = (DEMO, PAID, REFUSED, RETRIED, STUCK, CREDIT, VIDEO)
WRITTEN = frozenset[str]().union(*(case.ending.variables for case in CASES))
_ROUND = (
    *(VIDEO, DEMO, PAID, CREDIT, DEMO, PAID, REFUSED, DEMO, PAID, CREDIT),
    *(DEMO, PAID, CREDIT, RETRIED, DEMO, PAID, CREDIT, DEMO, PAID, DEMO),
)
FEWEST = len(_ROUND) + 1


def cases(count: int) -> list[Case]:
    """So many cases in the order of their start, one of them the incident, each kind at least once.

    Raises ValueError below `FEWEST`.
    """
    if count < FEWEST:
        raise ValueError(
            f"{count} instances cannot show every ending: at least {FEWEST} are needed"
        )
    return [STUCK, *islice(cycle(_ROUND), count - 1)]


def settled(ending: Ending) -> bool:
    """True when nothing more happens to the instance by itself."""
    return ending.incident or ending.end is not None


def table(started: Mapping[str, Case], stories: Mapping[str, Ending]) -> list[Row]:
    """One row for each kind of case; `started` and `stories` go by process instance id."""
    rows = []
    for case in CASES:
        ids = [instance for instance, its_case in started.items() if its_case == case]
        found = [stories.get(instance, Ending()) for instance in ids]
        rows.append(
            Row(
                case.title,
                started=len(ids),
                as_intended=sum(ending == case.ending for ending in found),
                finished=sum(ending.end is not None for ending in found),
                boundary=sum(ending.boundary is not None for ending in found),
                retried=sum(ending.failures > 0 and ending.end is not None for ending in found),
                incidents=sum(ending.incident for ending in found),
                progress=sum("progress" in ending.variables for ending in found),
            )
        )
    return rows


def astray(started: Mapping[str, Case], stories: Mapping[str, Ending]) -> list[str]:
    """One sentence for each instance that did not end as it should; empty when all did."""
    wrong = []
    for instance, case in started.items():
        ending = stories.get(instance, Ending())
        if ending != case.ending:
            wrong.append(f"{case.title} {instance}: {_words(ending)}; due: {_words(case.ending)}")
    return wrong


def _words(ending: Ending) -> str:
    parts = [
        f"ended at {ending.end}" if ending.end else "not ended",
        f"boundary {ending.boundary}" if ending.boundary else "",
        f"{ending.failures} failures" if ending.failures else "",
        "incident" if ending.incident else "",
        f"wrote {', '.join(sorted(ending.variables))}" if ending.variables else "",
    ]
    return ", ".join(part for part in parts if part)
