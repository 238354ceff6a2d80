"""The command line.  Parses and prints; what it starts is imported when it is asked for."""

from __future__ import annotations

import os
import signal
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
    rich_markup_mode=None,  # it swallows what stands in brackets
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
    findings = looks.check(_existing(config), os.environ)
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

    One user for the bridge, and one for the workers of each topic, who can touch nothing else
    (but where a stack answers to reply_to alone, as Celery and Spring do).
    Exit code 0, or 2 on bad settings.
    """
    from bridge import permissions as rights

    loaded = _load(config)
    try:
        users = rights.users(loaded, gone_notices=gone_notices)
    except SettingsError as error:
        _refuse(error.problems)
    typer.echo(rights.as_json(loaded, users) if json else rights.as_text(loaded, users))


@app.command()
def conform(
    *,
    cmd: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option("--cmd", metavar="COMMAND", help="Start this worker, AMQP_URL telling where."),
    ] = None,
    queue: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="QUEUE",
            help="The worker's queue [the topic's]. One that runs really does the examples.",
        ),
    ] = None,
    topic: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(
            metavar="TOPIC", help="The topic, as in the settings file [the queue's name]."
        ),
    ] = None,
    amqp_url: Annotated[
        Optional[str],  # noqa: UP045
        typer.Option(envvar="AMQP_URL", metavar="URL", help="RabbitMQ [as in the settings]."),
    ] = None,
    examples: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option(metavar="FILE", help="Which variables make it do what: see above."),
    ] = None,
    case: Annotated[
        Optional[list[str]],  # noqa: UP045
        typer.Option(metavar="CASE", help="Only this case; may be given again."),
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long an answer may take.")
    ] = 10.0,
    junit_xml: Annotated[
        Optional[Path],  # noqa: UP045
        typer.Option("--junit-xml", metavar="FILE", help="Write the verdicts for your CI."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the verdicts as JSON.")] = False,
    config: Config = None,
) -> None:
    """Put a worker of yours through the contract; no engine is needed.

    With --cmd the kit starts the worker, kills it, stops it and cuts its connection; without, it
    tries what it can on one that runs, which really does the work of the examples: never use it on
    one in production.  Use a RabbitMQ, or a virtual host, without a bridge.  A worker that has its
    address from elsewhere gets it so: --cmd 'sh -c "exec env MY_URL=$AMQP_URL my-worker"'.

    The kit knows no rules of your worker: a file (TOML, or JSON for null), given with --examples,
    says which variables make it do what:

    \b
        [success]
        variables = { amount = 12.5, currency = "EUR" }
        expect = { paymentStatus = "12.5 EUR" }    # if you like
        [business_error]
        variables = { amount = 1001 }
        [failure]
        variables = { amount = 503 }

    An outcome without an example is not tried; [unicode], [null], [numbers] and [large] replace
    what these cases add to [success].  The samples of the repository have such files, as
    consumers/python/payment_worker.toml:

    \b
        external-task-bridge conform --topic payment-processing \\
          --cmd "python consumers/python/payment_worker.py" \\
          --examples consumers/python/payment_worker.toml

    Exit code 0 where nothing failed, 1 where something did, 2 where the kit could not run or no
    case could be tried.
    """
    from bridge import conform as kit

    wanted = kit.Wanted(cmd, queue, topic, amqp_url, examples, tuple(case or ()), timeout)
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def tell(verdict: kit.Verdict) -> None:
        if not json:
            typer.echo(kit.line(verdict, color=color))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_SETTINGS))  # leave nothing running
    try:
        setup = kit.prepare(_existing(config), wanted, os.environ)
        if junit_xml is not None and not junit_xml.parent.is_dir():
            _refuse((f"--junit-xml: there is no folder {str(junit_xml.parent)!r}; make it first",))
        verdicts = kit.run(setup, tell)
        typer.echo(kit.as_json(verdicts) if json else kit.as_text(verdicts))
        if junit_xml is not None:
            junit_xml.write_bytes(kit.as_junit(verdicts))
    except SettingsError as error:
        _refuse(error.problems)
    except (kit.CannotRun, OSError) as error:
        _refuse((str(error),))
    code = kit.exit_code(verdicts)
    if code == kit.EXIT_UNTRIED:
        _refuse(("no case was tried, which says nothing; give what the reasons above name",))
    raise typer.Exit(code)


@app.command()
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

    loaded = _load(config)
    make = documents.asyncapi if form == "asyncapi" else documents.json_schema
    typer.echo(json.dumps(make(loaded), indent=2, ensure_ascii=False))


def _load(config: Path | None) -> Settings:
    from bridge import settings

    try:
        return settings.load(_existing(config), os.environ)
    except SettingsError as error:
        _refuse(error.problems)


def _existing(config: Path | None) -> Path | None:
    return DEFAULT_CONFIG if config is None and DEFAULT_CONFIG.exists() else config


def _refuse(problems: tuple[str, ...]) -> NoReturn:
    for problem in problems:
        typer.echo(problem, err=True)
    raise typer.Exit(EXIT_SETTINGS)


def main() -> None:
    """The entry point of `external-task-bridge`."""
    app()
