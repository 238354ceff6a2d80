"""What every command has in common: options, where the settings are, how a refusal reads."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional
from urllib.parse import urlsplit

import typer

from bridge.cli.printing import printable
from bridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.errors import BrokerUnavailable
    from bridge.settings import Settings

EXIT_WRONG = 1
EXIT_SETTINGS = 2
EXIT_UNREACHABLE = 3

Config = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--config", "-c", metavar="FILE", help="Settings file [bridge.toml if there]."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
Yes = Annotated[bool, typer.Option("--yes", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, do nothing.")]
DEFAULT_CONFIG = Path("bridge.toml")


def load(config: Path | None) -> Settings:
    """The settings; where they are bad, their problems and exit code 2."""
    from bridge import settings

    try:
        return settings.load(existing(config), os.environ)
    except SettingsError as error:
        refuse(error.problems)


def existing(config: Path | None) -> Path | None:
    """The settings file to read; None where none was named and none is there."""
    return DEFAULT_CONFIG if config is None and DEFAULT_CONFIG.exists() else config


def refuse(problems: Sequence[str], code: int = EXIT_SETTINGS) -> NoReturn:
    """Say on standard error why it cannot be done, a line each, and leave.  What others have said
    may stand in it: no control character reaches a terminal.
    """
    for problem in problems:
        typer.echo(printable(problem), err=True)
    raise typer.Exit(code)


def broker_silent(error: BrokerUnavailable, settings: Settings) -> NoReturn:
    """Say that RabbitMQ cannot be asked, where it was looked for, and the cure."""
    urls = settings.broker.amqp_urls()
    where = ", ".join(urlsplit(url).netloc.rpartition("@")[2] for url in urls)
    text = f"RabbitMQ at {where}: {error}; start it, or correct [broker] url"
    refuse((text,), EXIT_UNREACHABLE)


def confirmed(question: str, *, yes: bool) -> bool:
    """Whether an act that cannot be taken back is wanted: by `--yes`, or a y typed on a terminal.

    Without either nothing is done, which is said on standard error, with exit code 2.
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        refuse(("nothing was done: say --yes, since there is no terminal to ask at",))
    return typer.confirm(question, err=True)


def quiet() -> None:
    """Keep libraries off standard error: whatever they have to say, our errors say better."""
    import logging

    logging.getLogger().addHandler(logging.NullHandler())
