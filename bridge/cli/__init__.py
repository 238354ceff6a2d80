"""The command line.  Parses and prints; what a command needs is imported when it is asked for."""

from __future__ import annotations

from typing import Annotated

import typer

from bridge import __version__
from bridge.cli import conform, service

app = typer.Typer(
    name="external-task-bridge",
    help="Carries external tasks of a BPMN engine to RabbitMQ and their results back.",
    no_args_is_help=True,
    rich_markup_mode=None,  # it swallows what stands in brackets
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _version(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(f"external-task-bridge {__version__}")
        raise typer.Exit


app.command()(service.run)
app.command()(service.check)
app.command()(service.permissions)
app.command()(service.schema)
app.command()(conform.conform)


def main() -> None:
    """The entry point of `external-task-bridge`."""
    app()
