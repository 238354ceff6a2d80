"""Rounds of chaos: real broker, real engine, several replicas, and a plan of faults.

    .venv/bin/python -m tests.chaos --rounds 5 --tasks 1000 --seconds 120 --seed 1
    .venv/bin/python -m tests.chaos points      what a crash costs, point by point, as Markdown

Each round prints its seed, with which `--rounds 1 --seed N` plays the same plan again, and a table.
Exit code 1 where an invariant was violated.
"""

from __future__ import annotations

import argparse
import logging
import sys
import tempfile
from pathlib import Path

from tests.chaos.plan import DEFAULTS, KINDS, QUICK, WITHOUT_PURGE, Options
from tests.chaos.report import table
from tests.chaos.round import play
from tests.support.crash_points import as_markdown


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", nargs="?", choices=["rounds", "points"], default="rounds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tasks", type=int, default=1000, help="instances in each round")
    parser.add_argument("--seconds", type=float, default=120.0, help="of faults in each round")
    parser.add_argument("--seed", type=int, default=1, help="of the first round")
    parser.add_argument("--replicas", type=int, default=3)
    parser.add_argument("--no-purge", action="store_true", help="purge no queue: heals sooner")
    parser.add_argument(
        "--default-times",
        action="store_true",
        help="windows and leases of a bridge without settings; purges no queue, heals in minutes",
    )
    chosen = parser.parse_args()
    if chosen.what == "points":
        say(as_markdown())
        return 0
    logging.getLogger("pika").setLevel(logging.CRITICAL)  # brokers are killed here on purpose
    bad = 0
    for number in range(chosen.rounds):
        options = Options(
            tasks=chosen.tasks,
            seconds=chosen.seconds,
            seed=chosen.seed + number,
            replicas=chosen.replicas,
            times=DEFAULTS if chosen.default_times else QUICK,
            kinds=WITHOUT_PURGE if chosen.no_purge or chosen.default_times else KINDS,
        )
        bad += not _round(options)
    say(f"{chosen.rounds} rounds, {bad} with violations")
    return 1 if bad else 0


def _round(options: Options) -> bool:
    say(f"--- seed {options.seed}: {options.tasks} instances, {options.seconds:g} s of faults")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as directory:
        result = play(options, Path(directory), say)
    say(table(result))
    return result.good


if __name__ == "__main__":
    sys.exit(main())
