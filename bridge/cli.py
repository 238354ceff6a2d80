"""The command line.  Parses and prints; what it starts is imported when it is asked for."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, Optional

import typer

from bridge import __version__
from bridge.errors import SettingsError

if TYPE_CHECKING:
    from bridge.settings import Settings

EXIT_SETTINGS = 2

app = typer.Typer(
    name="external-task-bridge",
    help="Carries external tasks of a BPMN engine to RabbitMQ and their results back.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

Config = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--config", "-c", metavar="FILE", help="Settings file [bridge.toml if there]."),
]
DEFAULT_CONFIG = Path("bridge.toml")


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"external-task-bridge {__version__}")
        raise typer.Exit


@app.command()
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

    Exit code 0 after a graceful stop, 1 when a part died, 2 on bad settings.
    """
    from bridge import logs, service
    from bridge.settings import certificate_problems, known_secrets

    loaded = _load(config)
    if unusable := certificate_problems(loaded):
        _refuse(unusable)
    try:
        logs.configure(log_format, log_level, known_secrets(loaded))
        bridge = service.Service(loaded)
    except SettingsError as error:
        _refuse(error.problems)
    except OSError as error:
        _refuse((f'status.listen: {error.strerror}; choose another address, or "" for none',))
    sys.exit(bridge.run())


@app.command()
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
    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    findings = looks.check(config, os.environ)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    typer.echo(looks.as_json(findings) if json else looks.as_text(findings, color=color))
    raise typer.Exit(looks.exit_code(findings))


@app.command()
def permissions(
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rights as JSON.")] = False,
    gone_notices: Annotated[
        bool, typer.Option("--gone-notices", help="Let workers hear that a task is gone.")
    ] = False,
) -> None:
    """Print the rabbitmqctl lines for users with the least rights.

    One user for the bridge, and one for the workers of each topic, who can touch nothing else.
    Exit code 0, or 2 on bad settings.
    """
    from bridge import permissions as rights

    loaded = _load(config)
    try:
        users = rights.users(loaded, gone_notices=gone_notices)
    except SettingsError as error:
        _refuse(error.problems)
    typer.echo(rights.as_json(loaded, users) if json else rights.as_text(loaded, users))


def _load(config: Path | None) -> Settings:
    from bridge import settings

    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    try:
        return settings.load(config, os.environ)
    except SettingsError as error:
        _refuse(error.problems)


def _refuse(problems: tuple[str, ...]) -> NoReturn:
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(EXIT_SETTINGS)


def main() -> None:
    """The entry point of `external-task-bridge`."""
    app()
