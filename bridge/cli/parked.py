"""`parked list | show | replay | drop`: messages that nobody could apply."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from bridge.cli.options import (
    EXIT_WRONG,
    Config,
    DryRun,
    Json,
    Yes,
    broker_silent,
    confirmed,
    load,
    quiet,
    refuse,
)
from bridge.cli.parked_text import (
    list_document,
    many,
    none_of,
    parked_document,
    show_document,
    shown,
    table_of,
)
from bridge.cli.printing import as_json, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bridge.desk.parked import Chosen, Done, ParkedMessages
    from bridge.desk.parked_message import Parked

_FIRST = 20

app = typer.Typer(
    help="Messages that nobody could apply: list, show, replay, drop.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Reason = Annotated[
    Optional[str],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--reason", metavar="TEXT", help="Only where the reason has this text."),
]
Topic = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--topic", metavar="TOPIC", help="Only of this topic."),
]
Ids = Annotated[
    Optional[list[str]],  # noqa: UP045
    typer.Argument(metavar="ID", help="As the list shows them."),
]
All = Annotated[bool, typer.Option("--all", help="All that --reason and --topic leave.")]


@app.command("list")
def list_(
    *, reason: Reason = None, topic: Topic = None, json: Json = False, config: Config = None
) -> None:
    """List the parked messages, oldest first, and why they are parked.

    Exit code 0, 1 where the queue cannot be read, 2 on bad settings, 3 where RabbitMQ cannot be
    reached.
    """
    with _opened(config) as (parked, choose):
        every = parked.find(choose(None, None, None))
        found = [one for one in every if one in choose(None, reason, topic)]
    if json:
        typer.echo(as_json(list_document(parked.queue, found)))
    else:
        typer.echo(table_of(found) if found else none_of(len(every), reason, topic))


@app.command()
def show(
    message_id: Annotated[str, typer.Argument(metavar="ID", help="As the list shows it.")],
    *,
    body: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--body", metavar="FILE", help="Write the body there, as it is."),
    ] = None,
    json: Json = False,
    config: Config = None,
) -> None:
    """Show one message with its headers and its body, which may hold personal data.

    Exit code 0, 1 where there is none of this id, 2 on bad settings, 3 where RabbitMQ cannot be
    reached.
    """
    with _opened(config) as (parked, _):
        found = parked.show(message_id)
    if found is None:
        refuse((_missing(message_id),), EXIT_WRONG)
    if body is not None:
        _write(body, found.body)
        typer.echo(f"wrote {len(found.body)} bytes to {body}", err=json)
    if json:
        typer.echo(as_json(show_document(found, with_body=body is None)))
    else:
        typer.echo(shown(found, with_body=body is None))


@app.command()
def replay(
    ids: Ids = None,
    *,
    all_: All = False,
    reason: Reason = None,
    topic: Topic = None,
    edit: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--edit", metavar="FILE", help="With one ID: replay it with this body."),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Put messages back into the queues that they came from, where the bridge takes them again.

    What is wrong with one is corrected first: parked show ID --body FILE, edit it, then
    parked replay ID --edit FILE. Exit code 0 where all was done, 1 where some was not, 2 where
    nothing was done for want of an answer or on bad usage, 3 where RabbitMQ cannot be reached.
    """
    _wanted(ids, all_)
    if edit is not None and (ids is None or len(ids) != 1):
        refuse(("--edit: name the one message that gets this body",))
    body = None if edit is None else _bytes(edit)
    act = _Act("replay", "replayed", yes=yes, dry_run=dry_run, json=json)
    with _opened(config) as (parked, choose):
        wanted = choose(ids, reason, topic)
        act.on(parked, wanted, lambda chosen: parked.replay(chosen, body))


@app.command()
def drop(
    ids: Ids = None,
    *,
    all_: All = False,
    reason: Reason = None,
    topic: Topic = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Delete parked messages for good; their tasks stay as they are.

    Exit codes as of replay.
    """
    _wanted(ids, all_)
    act = _Act("drop", "dropped", yes=yes, dry_run=dry_run, json=json)
    with _opened(config) as (parked, choose):
        act.on(parked, choose(ids, reason, topic), parked.drop)


# -- looking --------------------------------------------------------------------------------------


@contextmanager
def _opened(
    config: Path | None,
) -> Iterator[
    tuple[ParkedMessages, Callable[[Sequence[str] | None, str | None, str | None], Chosen]]
]:
    """The parking queue and a way to choose; errors end the command."""
    from bridge.desk import parked as desk
    from bridge.errors import BrokerUnavailable

    quiet()

    def choose(ids: Sequence[str] | None, reason: str | None, topic: str | None) -> Chosen:
        return desk.Chosen(frozenset(ids) if ids else None, reason, topic)

    settings = load(config)
    try:
        yield desk.ParkedMessages(settings), choose
    except desk.ParkedUnusable as error:
        refuse((str(error),), EXIT_WRONG)
    except BrokerUnavailable as error:
        broker_silent(error, settings)


def _write(path: Path, body: bytes) -> None:
    """A new file that only its owner reads: it holds what the worker sent."""
    try:
        path.touch(mode=0o600, exist_ok=False)
        path.write_bytes(body)
    except OSError as error:
        refuse((f"--body {str(path)!r}: {error.strerror}; name a file that is not there yet",))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        refuse((f"--edit {str(path)!r}: {error.strerror}; name a file with the corrected body",))


# -- acting ---------------------------------------------------------------------------------------


def _wanted(ids: Sequence[str] | None, all_: bool) -> None:
    if bool(ids) == all_:
        refuse(("name the messages by id, or say --all (with --reason and --topic for some)",))


def _missing(message_id: str) -> str:
    return f"no parked message {message_id!r}; external-task-bridge parked list shows them"


class _Act:
    """Preview, question, act and what became of it."""

    def __init__(self, verb: str, past: str, *, yes: bool, dry_run: bool, json: bool) -> None:
        self._verb, self._past = verb, past
        self._yes, self._dry_run, self._json = yes, dry_run, json

    def on(
        self, parked: ParkedMessages, wanted: Chosen, act: Callable[[Chosen], list[Done]]
    ) -> NoReturn:
        """Do it, where it is wanted, and end the command."""
        from bridge.desk.parked import Chosen

        found = parked.find(wanted)
        problems = {one: _missing(one) for one in sorted(wanted.ids or ())}
        for one in found:
            problems.pop(one.id, None)
        self._preview(found)
        done: list[Done] = []
        if found and not self._dry_run:
            if not confirmed(f"{self._verb} {many(found)}?", yes=self._yes):
                refuse(("nothing was done",), EXIT_WRONG)
            done = act(Chosen(frozenset(one.id for one in found)))
            problems |= {d.parked.id: f"{d.parked.id}: {d.problem}" for d in done if d.problem}
            gone = {one.id for one in found} - {d.parked.id for d in done}
            problems |= {one: f"{one}: somebody else has it, or had it" for one in sorted(gone)}
        self._end(found, [d.parked.id for d in done if d.problem is None], problems)

    def _preview(self, found: Sequence[Parked]) -> None:
        text = f"{many(found)} to {self._verb}"
        if found:
            text = f"{table_of(found[:_FIRST])}\n{text}"
            text += f" (the first {_FIRST} are shown)" if len(found) > _FIRST else ""
        typer.echo(text, err=self._json)

    def _end(self, found: Sequence[Parked], done: list[str], problems: dict[str, str]) -> NoReturn:
        if self._json:
            document = {
                "schemaVersion": 1,
                "dryRun": self._dry_run,
                "found": [parked_document(one) for one in found],
                "done": done,
                "notDone": [{"id": one, "problem": text} for one, text in problems.items()],
            }
            typer.echo(as_json(document))
        elif not self._dry_run and found:
            typer.echo(f"{self._past} {len(done)} of {many(found)}")
        for text in problems.values():
            typer.echo(printable(text), err=True)
        raise typer.Exit(EXIT_WRONG if problems else 0)
