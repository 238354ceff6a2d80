"""The command line.  Parses and prints; what a command needs is imported when it is asked for."""

from __future__ import annotations

from typing import Annotated

import typer
from typer.core import TyperGroup

from bridge import __version__
from bridge.cli import acts, config, conform, definitions, parked, queues, service, tasks

# In the help: to begin, to set up, to look, to act.
_ORDER = (
    *("init", "check", "run"),
    *("config", "permissions", "definitions", "schema", "conform"),
    *("top", "topics", "tasks", "why", "incidents"),
    *("retry", "release", "parked"),
)


class _InOrder(TyperGroup):
    """The commands in the order of their use."""

    def list_commands(self, ctx: object) -> list[str]:
        return sorted(self.commands, key=_ORDER.index)


app = typer.Typer(
    cls=_InOrder,
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
app.command()(config.init)
app.add_typer(config.config, name="config")
app.command()(service.permissions)
app.command(short_help="Print exchanges, queues and bindings for an import in RabbitMQ.")(
    definitions.definitions
)
app.command(short_help="Print the contract with workers: AsyncAPI 3 or JSON Schema.")(
    service.schema
)
app.command(short_help="Put a worker of yours through the contract, without engine.")(
    conform.conform
)
app.command(short_help="List the external tasks and what each is doing.")(tasks.tasks)
app.command(short_help="Say what a task waits for, and what is known of it.")(tasks.why)
app.command(short_help="List the incidents, counted by topic and message.")(tasks.incidents)
app.command(short_help="Give tasks without retries new attempts.")(acts.retry)
app.command(short_help="Give tasks back to the engine: they are published again.")(acts.release)
app.command(short_help="Show how a running bridge stands, topic by topic.")(queues.top)
app.command(short_help="Compare the engine's topics with the configured ones.")(queues.topics)
app.add_typer(parked.app, name="parked")


def main() -> None:
    """The entry point of `external-task-bridge`."""
    app()
