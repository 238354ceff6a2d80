"""`tasks`, `why` and `incidents`: what lies in the engine, what one task waits for, what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Optional

import typer

from bridge.cli.options import EXIT_UNREACHABLE, EXIT_WRONG, Config, Json, load, refuse
from bridge.cli.printing import ago, as_json, printable, table

if TYPE_CHECKING:
    from bridge.desk import incidents as desk_incidents
    from bridge.desk import why as desk_why

Topic = Annotated[
    Optional[str],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--topic", metavar="TOPIC", help="Only tasks of this topic."),
]
Process = Annotated[
    Optional[str],  # noqa: UP045
    typer.Option("--process", metavar="KEY", help="Only tasks of this process definition key."),
]


def tasks(
    *,
    topic: Topic = None,
    business_key: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--business-key", metavar="KEY", help="Only tasks of this business key."),
    ] = None,
    process: Process = None,
    state: Annotated[
        Optional[Literal["waiting", "locked", "retried", "failed", "suspended"]],  # noqa: UP045
        typer.Option(
            help="Only tasks that nobody holds (waiting); that somebody holds (locked); that "
            "failed and have attempts left, of both (retried); that have none left (failed); "
            "whose instance is suspended."
        ),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.")] = 100,
    json: Json = False,
    config: Config = None,
) -> None:
    """List the external tasks in the engine, oldest first, and what each is doing.

    What is in flight is asked of the running bridge too; without one it is told by the locks.
    Exit code 0, 2 on bad settings, 3 where the engine cannot be asked.
    """
    from bridge.desk import asking
    from bridge.desk import tasks as desk
    from bridge.errors import EngineError

    settings = load(config)
    wanted = desk.Wanted(topic, business_key, process, state, limit)
    try:
        records = asking.engine_records(settings)
        found = desk.look(settings, records, asking.replica(settings), wanted)
    except EngineError as error:
        refuse((printable(asking.unreachable(error, settings.engine)),), EXIT_UNREACHABLE)
    if json:
        typer.echo(as_json(found.as_json()))
        return
    headings = ("TASK", "TOPIC", "BUSINESS KEY", "PROCESS", "STATE", "RETRIES", "AGE", "LAST ERROR")
    rows = [
        (
            shown.task.id,
            shown.task.topic_name,
            shown.task.business_key or "",
            shown.task.process_definition_key or "",
            shown.words,
            "" if shown.task.retries is None else str(shown.task.retries),
            "" if shown.age is None else ago(shown.age),
            desk.first_line(shown.task.error_message),
        )
        for shown in found.tasks
    ]
    typer.echo(table(headings, rows, right=("RETRIES", "AGE")) if rows else "no such task")
    if found.more:
        typer.echo(f"there are more than these {limit}: raise --limit, or name more", err=True)


def why(
    key: Annotated[
        str,
        typer.Argument(metavar="KEY", help="A task id, process instance id or business key."),
    ],
    json: Json = False,
    config: Config = None,
) -> None:
    """Say what a task waits for, and what engine, broker and bridge know of it.

    Exit code 0, 1 where nothing of that name is known, 2 on bad settings, 3 where the engine
    cannot be asked (what the bridge alone knows is told).
    """
    from bridge.desk import why as desk

    answer = desk.look(load(config), key)
    typer.echo(as_json(answer.as_json()) if json else _answer(answer))
    if answer.engine_problem is not None:
        refuse((printable(answer.engine_problem),), EXIT_UNREACHABLE)
    if answer.found == "none":
        raise typer.Exit(EXIT_WRONG)


def incidents(
    *,
    topic: Topic = None,
    process: Process = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="List at most so many.")] = 20,
    json: Json = False,
    config: Config = None,
) -> None:
    """List the incidents of external tasks, counted by topic and message.

    Exit code 0 where there is none, 1 where there is one, 2 on bad settings, 3 where the engine
    cannot be asked.
    """
    from bridge.desk import asking
    from bridge.desk import incidents as desk
    from bridge.errors import EngineError

    settings = load(config)
    try:
        found = desk.look(asking.engine_records(settings), desk.Wanted(topic, process))
    except EngineError as error:
        refuse((printable(asking.unreachable(error, settings.engine)),), EXIT_UNREACHABLE)
    typer.echo(as_json(found.as_json()) if json else _incidents(found, limit))
    raise typer.Exit(EXIT_WRONG if found.found else 0)


def _answer(answer: desk_why.Answer) -> str:
    parts = [_explained(task) for task in answer.tasks]
    return "\n\n".join([*parts, *([printable(answer.note)] if answer.note else [])])


def _explained(task: desk_why.Explained) -> str:
    from bridge.desk.facts import iso

    named = [f"topic {task.topic}"]
    named += [f"process {task.process}"] if task.process else []
    named += [f"business key {task.business_key}"] if task.business_key else []
    lines = [
        f"task {task.task_id}: {task.verdict.state}",
        f"  {', '.join(named)}",
        f"  waits for {task.verdict.waits_for}",
        *([f"  what helps: {task.verdict.command}"] if task.verdict.command else []),
    ]
    facts = [(iso(fact.at) or "now", fact.source, fact.text) for fact in task.facts]
    listed = table(("WHEN", "WHO SAYS", "WHAT"), facts).splitlines() if facts else []
    return "\n".join([printable(line) for line in lines] + [f"  {line}" for line in listed])


def _incidents(found: desk_incidents.Incidents, limit: int) -> str:
    if not found.found:
        return "no incident of an external task"
    groups = [(topic, str(count), message) for topic, message, count in found.groups()]
    rows = [
        (
            incident.task.id,
            incident.task.topic_name,
            incident.task.process_definition_key or "",
            incident.task.business_key or "",
            ago(incident.age),
            incident.message,
        )
        for incident in found.found[:limit]
    ]
    headings = ("TASK", "TOPIC", "PROCESS", "BUSINESS KEY", "AGE", "MESSAGE")
    left = len(found.found) - len(rows)
    return "\n".join(
        [
            table(("TOPIC", "COUNT", "MESSAGE"), groups, right=("COUNT",)),
            "",
            table(headings, rows, right=("AGE",)),
            *([f"and {left} more (--limit)"] if left else []),
            *(["and others: only so many are looked at"] if found.more else []),
            "",
            "external-task-bridge retry gives them another attempt: name tasks, or --topic",
        ]
    )
