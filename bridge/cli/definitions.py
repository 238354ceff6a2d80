"""`definitions`: what the bridge needs of RabbitMQ, to be imported there."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Optional

import typer

from bridge.cli.options import Config, load, refuse
from bridge.errors import SettingsError


def definitions(
    config: Config = None,
    passwords: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(
            metavar="DIR",
            help="Users and rights too; passwords are files here, named as in `permissions`.",
        ),
    ] = None,
    gone_notices: Annotated[
        bool, typer.Option("--gone-notices", help="Let workers hear that a task is gone.")
    ] = False,
) -> None:
    """Print the exchanges, queues and bindings as a definitions file of RabbitMQ.

    For an administrator who declares them: rabbitmqctl import_definitions FILE, or
    definitions.local.path in rabbitmq.conf.  The bridge then needs `declare = "passive"` and no
    right to configure.  An import changes no queue that is there, but with --passwords the
    passwords of users who are.  Exit code 0, or 2 on bad settings.
    """
    import json

    from bridge import definitions as made

    loaded = load(config)
    try:
        found = made.definitions(loaded, passwords=passwords, gone_notices=gone_notices)
    except SettingsError as error:
        refuse(error.problems)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
