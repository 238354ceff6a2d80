"""`run` and what can be asked of the settings alone: `check`, `permissions`, `schema`."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bridge.cli.options import Config, existing, load, refuse
from bridge.cli.printing import colored
from bridge.errors import SettingsError

if TYPE_CHECKING:
    from bridge.settings import Settings


def run(
    config: Config = None,
    log_format: Annotated[
        Literal["console", "json"], typer.Option(help="How to write the log.")
    ] = "console",
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], typer.Option(help="From which level on.")
    ] = "info",
) -> None:
    """Run the bridge until SIGTERM.

    SIGHUP has it read its settings again: topics that were added, removed or changed are taken
    over, the log says what differs and what needs a restart, and bad settings change nothing.
    Exit code 0 after a graceful stop, 1 when a part died, 2 on bad settings.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # too early: what it asks for is being done
    from bridge import logs, service, settings

    path = existing(config)

    def read() -> Settings:
        found = settings.load(path, os.environ)
        if unusable := settings.certificate_problems(found):
            raise SettingsError(unusable)
        return found

    try:
        loaded = read()
        logs.configure(log_format, log_level, settings.known_secrets(loaded))
        bridge = service.Service(loaded, read)
    except SettingsError as error:
        refuse(error.problems)
    except OSError as error:
        refuse((f'status.listen: {error.strerror}; choose another address, or "" for none',))
    sys.exit(bridge.run())


def check(
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print the findings as JSON.")] = False,
) -> None:
    """Say everything that would fail, touching nothing.

    Exit code 0 where nothing would fail, 1 where something would, 2 on bad settings.
    """
    import logging

    from bridge import check as looks

    # Whatever pika and urllib3 have to say, a finding says better.
    logging.getLogger().addHandler(logging.NullHandler())
    findings = looks.check(existing(config), os.environ)
    color = colored()
    typer.echo(looks.as_json(findings) if json else looks.as_text(findings, color=color))
    raise typer.Exit(looks.exit_code(findings))


def permissions(
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rights as JSON.")] = False,
    gone_notices: Annotated[
        bool, typer.Option("--gone-notices", help="Let workers hear that a task is gone.")
    ] = False,
) -> None:
    """Print the rabbitmqctl lines for users with the least rights.

    One user for the bridge, and one for the workers of each topic, who can touch nothing else
    (but where a stack answers to reply_to alone, as Celery and Spring do).
    Exit code 0, or 2 on bad settings.
    """
    from bridge import permissions as rights

    loaded = load(config)
    try:
        users = rights.users(loaded, gone_notices=gone_notices)
    except SettingsError as error:
        refuse(error.problems)
    typer.echo(rights.as_json(loaded, users) if json else rights.as_text(loaded, users))


def schema(
    config: Config = None,
    form: Annotated[
        Literal["asyncapi", "json-schema"],
        typer.Option("--format", help="Channels and messages, or the bodies of messages alone."),
    ] = "asyncapi",
) -> None:
    """Print the contract with workers for the configured topics, as AsyncAPI 3 or JSON Schema.

    Exit code 0, or 2 on bad settings.
    """
    import json

    from bridge import schema as documents

    loaded = load(config)
    make = documents.asyncapi if form == "asyncapi" else documents.json_schema
    typer.echo(json.dumps(make(loaded), indent=2, ensure_ascii=False))
