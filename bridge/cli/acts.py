"""`retry` and `release`: what an operator does to tasks in the engine, after a preview."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Optional

import typer

from bridge.cli.options import (
    EXIT_SETTINGS,
    EXIT_UNREACHABLE,
    EXIT_WRONG,
    Config,
    DryRun,
    Json,
    Yes,
    confirmed,
    load,
    refuse,
)
from bridge.cli.printing import as_json, printable, table
from bridge.cli.tasks import Process, Topic

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bridge.desk.choosing import Chosen, Done

FIRST = 10

Ids = Annotated[
    Optional[list[str]],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Argument(metavar="TASK...", help="Task ids."),
]


def retry(
    ids: Ids = None,
    *,
    topic: Topic = None,
    process: Process = None,
    message: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--message", metavar="TEXT", help="Only where the last error has this text."),
    ] = None,
    retries: Annotated[
        int, typer.Option(min=1, metavar="N", help="So many attempts before the next incident.")
    ] = 1,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Give tasks without retries new attempts, which ends their incidents.

    Exit code 0 where all was done, 1 where some was not, 2 where nothing was done for want of an
    answer or on bad settings, 3 where the engine cannot be asked.
    """
    from bridge.desk import asking, incidents
    from bridge.errors import EngineError

    if not (ids or topic or process or message):
        refuse(("name the tasks to retry, or say --topic, --process or --message",), EXIT_SETTINGS)
    settings = load(config)
    records = asking.engine_records(settings)
    wanted = incidents.Wanted(topic, process, message)
    try:
        chosen = incidents.choose(records, ids or (), wanted)
        attempts = "1 more attempt" if retries == 1 else f"{retries} more attempts"
        _preview(chosen, f"to retry, {attempts} each", json=json)
        if dry_run or not chosen.tasks:
            _end(chosen, None, json=json, dry_run=dry_run)
        if not confirmed(f"retry {len(chosen.tasks)}?", yes=yes):
            refuse(("nothing was done",), EXIT_WRONG)
        done = incidents.retry(records, chosen.tasks, retries, settings.worker_id)
    except EngineError as error:
        refuse((printable(asking.unreachable(error, settings.engine)),), EXIT_UNREACHABLE)
    _end(chosen, done, json=json)


def release(
    ids: Ids = None,
    *,
    topic: Topic = None,
    older_than: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            "--older-than",
            metavar="TIME",
            help="With --topic: only tasks held for longer, such as 5m. Where the bridge that is "
            "asked does not hold a task, its creation counts.",
        ),
    ] = None,
    yes: Yes = False,
    dry_run: DryRun = False,
    json: Json = False,
    config: Config = None,
) -> None:
    """Give tasks that this bridge holds back to the engine now: they are published again.

    For messages that are lost, as after a purge of their queue. One that is not lost comes twice,
    with the same message_id. A task that is named between two attempts gets its next one at once.
    Exit codes as of retry.
    """
    from bridge.desk import asking
    from bridge.desk import release as desk
    from bridge.errors import EngineError

    seconds = _seconds(ids, topic, older_than)
    settings = load(config)
    records = asking.engine_records(settings)
    try:
        chosen = desk.choose(
            settings,
            records,
            asking.replica(settings),
            task_ids=ids or (),
            topic=topic,
            older_than=seconds,
        )
        _preview(chosen, "to release", json=json)
        held = desk.queues(settings, [name for name, _ in chosen.topics()])
        for queue in held:
            twice = "" if queue.empty else ": what is not lost will come twice"
            typer.echo(printable(queue.text + twice), err=json)
        more = {"queues": [queue.as_json() for queue in held]}
        if dry_run or not chosen.tasks:
            _end(chosen, None, json=json, dry_run=dry_run, more=more)
        if not confirmed(f"release {len(chosen.tasks)}?", yes=yes):
            refuse(("nothing was done",), EXIT_WRONG)
        done = desk.release(settings, records, chosen.tasks)
    except EngineError as error:
        refuse((printable(asking.unreachable(error, settings.engine)),), EXIT_UNREACHABLE)
    _end(chosen, done, json=json, more=more)


def _seconds(ids: list[str] | None, topic: str | None, older_than: str | None) -> float:
    from bridge.settings.values import parse_duration

    if ids and topic:
        refuse(("name the tasks to release or say --topic and --older-than, not both",))
    if not ids and not topic:
        refuse(("name the tasks to release, or say --topic and --older-than",))
    if topic and older_than is None:
        refuse(("--older-than is missing: say for how long they are held, or 0s for all",))
    if ids and older_than is not None:
        refuse(("--older-than goes with --topic; the named tasks are released whatever their age",))
    try:
        return parse_duration(older_than or "0s").total_seconds()
    except ValueError as error:
        refuse((f"--older-than: {error}",))


def _preview(chosen: Chosen, what: str, *, json: bool) -> None:
    """How many, of which topics, and the first of them; on standard error beside a document."""
    topics = ", ".join(f"{count} of {topic}" for topic, count in chosen.topics())
    lines = [printable(f"{len(chosen.tasks)} {what}" + (f": {topics}" if topics else ""))]
    rows = [
        (task.id, task.topic_name, task.process_definition_key or "", task.business_key or "")
        for task in chosen.tasks[:FIRST]
    ]
    if rows:
        lines.append(table(("TASK", "TOPIC", "PROCESS", "BUSINESS KEY"), rows))
    if len(chosen.tasks) > FIRST:
        lines.append(f"and {len(chosen.tasks) - FIRST} more")
    lines += [printable(note) for note in chosen.notes]
    typer.echo("\n".join(lines), err=json)


def _end(
    chosen: Chosen,
    done: Done | None,
    *,
    json: bool,
    dry_run: bool = False,
    more: Mapping[str, object] | None = None,
) -> None:
    """Say what was done and what was not, and leave."""
    finished = () if done is None else done.done
    failed = () if done is None else done.failed
    not_done = [*chosen.left, *failed]
    if json:
        document = {
            "schemaVersion": 1,
            "dryRun": dry_run,
            "chosen": [task.id for task in chosen.tasks],
            "topics": [{"topic": name, "count": count} for name, count in chosen.topics()],
            "notes": list(chosen.notes),
            **(more or {}),
            "done": list(finished),
            "notDone": [{"taskId": i, "reason": reason} for i, reason in not_done],
        }
        typer.echo(as_json(document))
    else:
        for task_id, reason in not_done:
            typer.echo(printable(f"{task_id}: {reason}"), err=True)
        if done is not None:
            typer.echo(f"done: {len(finished)}" + (f", not done: {len(failed)}" if failed else ""))
        elif dry_run:
            typer.echo("nothing was done: --dry-run")
    raise typer.Exit(EXIT_WRONG if not_done else 0)
