"""What every command has in common: where the settings are, how a refusal reads, when to color."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, Optional

import typer

from bridge.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.settings import Settings

EXIT_SETTINGS = 2
EXIT_UNREACHABLE = 3

Config = Annotated[
    Optional[Path],  # noqa: UP045 (typer reads the annotation at run time)
    typer.Option("--config", "-c", metavar="FILE", help="Settings file [bridge.toml if there]."),
]
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


def colored() -> bool:
    """Whether color helps: a terminal, and no NO_COLOR (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def refuse(problems: Sequence[str], code: int = EXIT_SETTINGS) -> NoReturn:
    """Say on standard error why it cannot be done, a line each, and leave."""
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(code)


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
