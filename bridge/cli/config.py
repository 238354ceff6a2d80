"""The settings file: `config show` explains it, `init` proposes one."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Optional

import typer

from bridge.cli.options import (
    DEFAULT_CONFIG,
    EXIT_UNREACHABLE,
    EXIT_WRONG,
    Config,
    Json,
    existing,
    refuse,
)
from bridge.errors import EngineError, SettingsError

config = typer.Typer(
    help="Show the settings in force and where they come from.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@config.callback()
def _config() -> None:
    """Show the settings in force and where they come from."""


@config.command()
def show(
    config: Config = None,
    set_only: Annotated[
        bool, typer.Option("--set", help="Only what somebody has set, no defaults.")
    ] = False,
    json: Json = False,
) -> None:
    """Print every value in force and where it comes from.

    From the settings file, a variable of the environment, a secret file or the defaults; topics
    with what they take from [topic_defaults].  Secrets are masked.

    Exit code 0, or 2 on bad settings.
    """
    from bridge.cli import printing
    from bridge.desk import origins

    file = existing(config)
    try:
        found = origins.values(file, os.environ)
    except SettingsError as error:
        refuse(error.problems)
    if set_only:
        found = [value for value in found if value.origin.kind != "default"]
    if json:
        typer.echo(printing.as_json(origins.as_document(found, file)))
    else:
        rows = [(value.key, value.toml, str(value.origin)) for value in found]
        typer.echo(printing.table(("KEY", "VALUE", "FROM"), rows))


def init(
    engine_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(metavar="URL", help="The engine [as in the settings]."),
    ] = None,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="Where to write it.")
    ] = DEFAULT_CONFIG,
    force: Annotated[
        bool, typer.Option("--force", help="Write it although the file is there.")
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Also print what was found, as one JSON document.")
    ] = False,
    config: Config = None,
) -> None:
    """Write a settings file for the topics that the engine has.

    They come from the processes that are deployed (in their latest version) and from the tasks
    that wait.  Credentials for the engine are taken from the environment or a file of settings,
    and not written.

    Exit code 0, 1 where the engine has no topic, 2 on bad settings or where the file is there, 3
    where the engine cannot be reached.
    """
    from bridge.cli import printing
    from bridge.desk import proposal
    from bridge.desk.asking import unreachable

    file = existing(config) if engine_url is None else config
    try:
        if output.exists() and not force:
            refuse((f"{output} is there already; name another --output, or add --force",))
        engine = proposal.engine_settings(file, engine_url, os.environ)
        found = proposal.look(engine)
        if not found.topics:
            cure = "deploy a process with external tasks first"
            refuse((f"the engine at {engine.url} has no topic; {cure}",), EXIT_WRONG)
        proposal.write(found, output)
    except SettingsError as error:
        refuse(error.problems)
    except EngineError as error:
        refuse((unreachable(error, engine),), EXIT_UNREACHABLE)
    except OSError as error:
        refuse((f"{output} cannot be written ({error.strerror}); name another --output",))
    if json:
        typer.echo(printing.as_json({**found.as_document(), "file": str(output)}))
    else:
        names = ", ".join(topic.name for topic in found.topics)
        typer.echo(f"{output} written for {printing.printable(names)}")
        named = "" if output == DEFAULT_CONFIG else f" --config {output}"
        typer.echo(f"next: external-task-bridge check{named}")
