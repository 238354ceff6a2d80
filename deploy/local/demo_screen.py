"""What the demo shows: a tick for each step, a bar, a table.  Decides nothing.

On a terminal the running step and the bar move; elsewhere each finished step is one plain line.
NO_COLOR is obeyed.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from deploy.local.demo_cases import Row

_COLUMNS = ("started", "ended", "error", "retried", "incident", "progress", "right")
_BAR = (TextColumn("  ended"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
_LOOK_SECONDS = 0.5


class DemoError(Exception):
    """The demo cannot go on; `cure` says what its user can do about it."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(reason)
        self.cure = cure


@dataclass
class Step:
    """A running step; `detail` and `good` may be set while it runs and stand on its tick."""

    title: str
    detail: str = ""
    good: bool = True


def _console() -> Console:
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a tick must not end the demo on a Latin-1 screen
    return Console(highlight=False, soft_wrap=True)


@dataclass
class Screen:
    """The demo's output on stdout."""

    console: Console = field(default_factory=_console)

    @contextmanager
    def step(self, title: str) -> Iterator[Step]:
        """Show the step while it runs; end with a tick and its seconds, or with a cross."""
        with self._timed(title) as step, self.console.status(Text(f"{title} ...")):
            yield step

    @contextmanager
    def _timed(self, title: str) -> Iterator[Step]:
        begun, step = time.monotonic(), Step(title)
        try:
            yield step
        except BaseException:
            step.good = False
            raise
        finally:
            mark = ("  ✓ ", "green") if step.good else ("  ✗ ", "red")
            timed = f"{step.title:<10} {time.monotonic() - begun:5.1f} s  "
            self.console.print(Text.assemble(mark, timed, (step.detail, "dim")))

    def say(self, text: str, style: str = "") -> None:
        """Print one paragraph as it is."""
        self.console.print(Text(text, style=style))

    def failure(self, reason: str, cure: str) -> None:
        """Say what went wrong and what mends it."""
        self.console.print(Text(f"\n  {reason}", style="bold red"))
        self.console.print(Text(f"  → {cure}"))

    def simulated(self, why: str) -> None:
        """The loud line: no real engine takes part."""
        self.console.print(Text(f"\n  SIMULATED ENGINE: {why}\n", style="bold black on yellow"))

    def kept(self, engine_url: str, amqp_url: str, status_url: str, folder: str) -> None:
        """Say what was left running, and what to try with it."""
        body = '{"variables": {"amount": {"value": 2500}, "currency": {"value": "EUR"}}}'
        self.say(
            f"  left running:\n"
            f"    engine    {engine_url}\n"
            f"    RabbitMQ  {amqp_url}\n"
            f"    bridge    {status_url}/metrics and /ready, settings {folder}/bridge.toml\n\n"
            f"  try, and watch the logs (tail -f {folder}/*.log):\n"
            f"    curl -H 'Content-Type: application/json' -d '{body}' \\\n"
            f"      {engine_url}/process-definition/key/payment/start\n\n"
            f"  `make down` ends it."
        )

    def follow(self, total: int, settled: Callable[[], int], seconds: float) -> bool:
        """Show the progress until all are settled (True) or the seconds are over (False)."""
        end, now, said, moves = time.monotonic() + seconds, 0, 0, self.console.is_terminal
        bar = Progress(*_BAR, console=self.console, transient=True, disable=not moves)
        with self._timed("ended") as step, bar:
            task = bar.add_task("", total=total)
            while (now := settled()) < total and time.monotonic() < end:
                bar.update(task, completed=now)
                if not moves and now >= said + total / 4:
                    said = now
                    self.say(f"    {now} of {total}")
                time.sleep(_LOOK_SECONDS)
            step.good, step.detail = now >= total, f"{now} of {total}"
        return step.good

    def table(self, rows: Sequence[Row]) -> None:
        """The counts from the engine's history, with their sum."""
        table = Table(box=SIMPLE_HEAD, padding=(0, 1, 0, 0), show_edge=False)
        table.add_column("  from the history", no_wrap=True)
        for name in _COLUMNS:
            table.add_column(name, justify="right", no_wrap=True)
        for row in rows:
            table.add_row(f"  {row.title}", *_cells(row), style="" if _good(row) else "bold red")
        table.add_section()
        table.add_row("  all", *_sums(rows), style="bold")
        self.console.print("", table, "")


def _good(row: Row) -> bool:
    return row.as_intended == row.started


def _counts(row: Row) -> tuple[int, ...]:
    return (
        row.started,
        row.finished,
        row.boundary,
        row.retried,
        row.incidents,
        row.progress,
        row.as_intended,
    )


def _cells(row: Row) -> list[str]:
    return [str(count) if count else "·" for count in _counts(row)]


def _sums(rows: Sequence[Row]) -> list[str]:
    return [str(sum(column)) for column in zip(*map(_counts, rows), strict=True)]
