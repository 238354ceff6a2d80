"""`top` and `topics`: how a bridge stands from moment to moment, and which topic lacks somebody."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Optional

import typer

from bridge.cli.options import (
    EXIT_UNREACHABLE,
    EXIT_WRONG,
    Config,
    Json,
    broker_silent,
    load,
    quiet,
    refuse,
)
from bridge.cli.printing import ago, as_json, colored, printable, table

if TYPE_CHECKING:
    from bridge.desk import top as desk_top
    from bridge.desk import topics as desk_topics

# Queues are counted only once somebody asks; a second look also tells the rates.
_LOOKS_ONCE, _ONCE_SECONDS = 4, 1.0
_INTERVAL_LEAST = 0.2
_QUIT = frozenset(b"qQ\x03\x1b")


def top(
    *,
    interval: Annotated[
        str, typer.Option("--interval", metavar="TIME", help="How often to look.")
    ] = "2s",
    once: Annotated[bool, typer.Option("--once", help="Look once (for a second) and end.")] = False,
    url: Annotated[
        Optional[str],  # noqa: UP045 (typer reads the annotation at run time)
        typer.Option(metavar="URL", help="The bridge's status server [as in the settings]."),
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Show how a running bridge stands: a row per topic, and what is wrong now.

    On a terminal it goes on until q or Ctrl-C; elsewhere, with --once or --json, it ends by
    itself. Counts of queues are the whole deployment's, tasks in flight those of this replica.
    Exit code 0, 2 on bad usage or settings, 3 where no bridge answers.
    """
    from bridge.desk import top as desk
    from bridge.settings.values import parse_duration

    try:
        seconds = parse_duration(interval).total_seconds()
    except ValueError as error:
        refuse((f"--interval: {error}",))
    if seconds < _INTERVAL_LEAST:
        refuse((f"--interval: {interval} is too short; at least 200ms is wanted",))
    try:
        address = url if url is not None else desk.url_of(load(config))
        if once or json or not _can_go_on():
            document, before = _looked_once(address)
            now = desk.read(document, before)
            typer.echo(as_json(_document(document, now)) if json else _screen(now, address))
            return
        _live(address, seconds)
    except desk.NoAddress as error:
        refuse((str(error),))
    except desk.BridgeSilent as error:
        refuse((str(error),), EXIT_UNREACHABLE)


def topics(json: Json = False, config: Config = None) -> None:
    """Compare the engine's topics with the configured ones and with who consumes their queues.

    Exit code 0 where nothing is wrong, 1 where a topic lacks somebody, 2 on bad settings, 3 where
    engine or RabbitMQ cannot be asked.
    """
    from bridge.desk import asking
    from bridge.desk import topics as desk
    from bridge.errors import BrokerUnavailable, EngineError

    settings = load(config)
    quiet()
    try:
        lines = desk.look(settings)
    except EngineError as error:
        refuse((asking.unreachable(error, settings.engine),), EXIT_UNREACHABLE)
    except BrokerUnavailable as error:
        broker_silent(error, settings)
    typer.echo(as_json(_topics_document(lines)) if json else _topics_table(lines))
    raise typer.Exit(EXIT_WRONG if any(line.problem for line in lines) else 0)


# -- top -----------------------------------------------------------------------------------------


def _looked_once(address: str) -> tuple[desk_top.Document, desk_top.Document]:
    """A snapshot with its counts, and an earlier one to tell the rates from."""
    from bridge.desk import top as desk

    before = document = desk.ask(address)
    for _ in range(_LOOKS_ONCE):
        time.sleep(_ONCE_SECONDS)
        document = desk.ask(address)
        if desk.counts_known(document):
            break
    return document, before


def _live(address: str, seconds: float) -> None:
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from bridge.desk import top as desk

    before, document = None, desk.ask(address)
    silent: list[str] = []
    console = Console(no_color=not colored(), highlight=False)
    with _keys(), Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            # On top: what is below the last line of the terminal is not seen.
            lines = ["q ends", *silent, "", _screen(desk.read(document, before), address)]
            live.update(Text.from_ansi("\n".join(lines)), refresh=True)
            if _quits_within(seconds):
                return
            try:
                before, document, silent = document, desk.ask(address), []
            except desk.BridgeSilent as error:
                silent = [printable(f"What you see is from before: {error}")]


def _can_go_on() -> bool:
    """Whether there is a terminal, with keys, on which text can be replaced."""
    dumb = os.environ.get("TERM") in {"dumb", "unknown"}
    return sys.stdout.isatty() and sys.stdin.isatty() and not dumb


@contextmanager
def _keys() -> Iterator[None]:
    """Keys come as they are pressed, unseen; Ctrl-C is one of the ways to end."""
    import termios
    import tty

    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)
    try:
        tty.setcbreak(terminal)
        yield
    except KeyboardInterrupt:
        return
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _quits_within(seconds: float) -> bool:
    if not select.select([sys.stdin], [], [], seconds)[0]:
        return False
    pressed = os.read(sys.stdin.fileno(), 64)
    return not pressed or not _QUIT.isdisjoint(pressed)


def _screen(now: desk_top.Now, address: str) -> str:
    from bridge.desk.top import without_credentials

    headings = (
        "TOPIC", "WAITING", "READY", "UNACKED", "CONSUMERS", "IN FLIGHT", "OLDEST", "DONE/S",
        "FAILED SINCE START", "STATE",
    )  # fmt: skip
    rows = [
        (
            topic.name,
            _number(topic.waiting),
            _number(topic.ready),
            _number(topic.unacked),
            _number(topic.consumers),
            f"{topic.in_flight}/{topic.capacity}",
            "-" if topic.oldest is None else ago(topic.oldest),
            "-" if topic.done_per_second is None else f"{topic.done_per_second:.1f}",
            str(topic.failed),
            topic.state,
        )
        for topic in now.topics
    ]
    parts = [f"{part} {'ok' if wrong is None else 'TROUBLE'}" for part, wrong in now.parts.items()]
    bridge = f"bridge {now.version}, worker id {now.worker_id}"
    lines = [
        printable(f"{bridge}, up {ago(now.uptime)}, at {without_credentials(address)}"),
        "   ".join(parts),
        "",
        table(headings, rows, right=headings[1:-1]),
        "",
    ]
    for trouble in now.troubles:
        helps = f"  ->  {trouble.command}" if trouble.command else ""
        lines.append(f"{'!' if trouble.bad else '-'} {printable(trouble.text)}{helps}")
    return "\n".join(lines if now.troubles else [*lines, "nothing is wrong"])


def _number(value: int | None) -> str:
    return "-" if value is None else str(value)


def _document(document: desk_top.Document, now: desk_top.Now) -> dict[str, Any]:
    """The snapshot, with the rates and with what is wrong."""
    rates = {topic.name: topic.done_per_second for topic in now.topics}
    return {
        **document,
        "topics": [{**t, "donePerSecond": rates[t["name"]]} for t in document["topics"]],
        "wrong": [{"text": t.text, "command": t.command, "bad": t.bad} for t in now.troubles],
    }


# -- topics --------------------------------------------------------------------------------------


def _topics_table(lines: list[desk_topics.TopicLine]) -> str:
    headings = (
        "TOPIC", "BRIDGED", "WAITING", "LOCKED", "FAILED", "QUEUE", "READY", "CONSUMERS", "SAYS",
    )  # fmt: skip
    rows = [
        (
            line.name,
            "yes" if line.configured else "no",
            str(line.tasks.waiting),
            str(line.tasks.locked),
            str(line.tasks.failed),
            line.queue or "-",
            _number(line.messages.ready if line.messages else None),
            _number(line.messages.consumers if line.messages else None),
            f"! {line.problem}" if line.problem else line.remark or "",
        )
        for line in lines
    ]
    return table(headings, rows, right=("WAITING", "LOCKED", "FAILED", "READY", "CONSUMERS"))


def _topics_document(lines: list[desk_topics.TopicLine]) -> dict[str, Any]:
    return {
        "schemaVersion": 1,
        "topics": [
            {
                "name": line.name,
                "configured": line.configured,
                "waiting": line.tasks.waiting,
                "locked": line.tasks.locked,
                "failed": line.tasks.failed,
                "lockedBy": list(line.tasks.holders),
                "queue": line.queue,
                "ready": line.messages.ready if line.messages else None,
                "unacked": line.messages.unacked if line.messages else None,
                "consumers": line.messages.consumers if line.messages else None,
                "problem": line.problem,
                "remark": line.remark,
            }
            for line in lines
        ],
    }
