"""`conform`: a worker of the user's put through the contract."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Annotated, Optional

import typer

from bridge.cli.options import EXIT_SETTINGS, Config, existing, refuse
from bridge.cli.printing import colored
from bridge.errors import SettingsError


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
    color = colored()

    def tell(verdict: kit.Verdict) -> None:
        if not json:
            typer.echo(kit.line(verdict, color=color))

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_SETTINGS))  # leave nothing running
    try:
        setup = kit.prepare(existing(config), wanted, os.environ)
        if junit_xml is not None and not junit_xml.parent.is_dir():
            refuse((f"--junit-xml: there is no folder {str(junit_xml.parent)!r}; make it first",))
        verdicts = kit.run(setup, tell)
        typer.echo(kit.as_json(verdicts) if json else kit.as_text(verdicts))
        if junit_xml is not None:
            junit_xml.write_bytes(kit.as_junit(verdicts))
    except SettingsError as error:
        refuse(error.problems)
    except (kit.CannotRun, OSError) as error:
        refuse((str(error),))
    code = kit.exit_code(verdicts)
    if code == kit.EXIT_UNTRIED:
        refuse(("no case was tried, which says nothing; give what the reasons above name",))
    raise typer.Exit(code)
