"""The conformance kit: plays the bridge for one worker and judges what it does, without an engine.

Begin at `runner`; `cases` has what is tried.
"""

from bridge.conform.report import EXIT_UNTRIED, as_json, as_junit, as_text, exit_code, line
from bridge.conform.runner import run
from bridge.conform.setup import Setup, Wanted, prepare
from bridge.conform.verdict import CannotRun, Verdict

__all__ = [
    "EXIT_UNTRIED",
    "CannotRun",
    "Setup",
    "Verdict",
    "Wanted",
    "as_json",
    "as_junit",
    "as_text",
    "exit_code",
    "line",
    "prepare",
    "run",
]
