"""`python -m tests.benchmarks run` measures the figures, `plot RESULTS.json` draws them."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from deploy.local.engine_build import cache_dir
from deploy.local.programs import PartError
from tests.benchmarks import suite
from tests.benchmarks.parts import Parts
from tests.benchmarks.plan import QUICK, TINY, WHOLE, Plan
from tests.benchmarks.plot import svg
from tests.benchmarks.results import Results, load
from tests.benchmarks.table import growth_table, table

PLANS: Mapping[str, Plan] = {"whole": WHOLE, "quick": QUICK, "tiny": TINY}


def main() -> int:
    """The exit code: 2 for a wrong argument, 1 where a part cannot be had."""
    given = _arguments().parse_args()
    signal.signal(signal.SIGTERM, _end)  # or what was started would outlive us
    try:
        if given.command == "run":
            _run(PLANS[given.plan], given.only, given.out)
        else:
            given.out.write_text(svg(load(given.results)), encoding="utf-8")
            print(f"drawn to {given.out}")
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except PartError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _end(number: int, _frame: object) -> NoReturn:
    sys.exit(128 + number)


def _run(plan: Plan, only: str, out: Path) -> None:
    scenarios = suite.chosen(only)
    with tempfile.TemporaryDirectory() as directory, Parts(Path(directory)) as parts:
        results = suite.measure(parts, plan, scenarios)
    results.save(out)
    print(f"\n{shown(results)}\n\nwritten to {out}")


def shown(results: Results) -> str:
    """What is printed at the end: the table, growth, the conditions."""
    conditions = "\n".join(f"{name}: {value}" for name, value in results.conditions.items())
    parts = [table(results.figures), growth_table(results.growth), conditions]
    return "\n\n".join(part for part in parts if part)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="measure, print the table, write the results as JSON")
    run.add_argument("--plan", choices=PLANS, default="whole")
    run.add_argument("--only", default="", help="figures or scenarios, comma separated")
    default = cache_dir() / "benchmarks" / "results.json"
    run.add_argument("--out", type=Path, default=default)
    plot = commands.add_parser("plot", help="draw throughput and latency of a run as SVG")
    plot.add_argument("results", type=Path)
    plot.add_argument("--out", type=Path, default=Path(__file__).with_name("figures.svg"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
