"""Prints the matrix of workers and cases at the end of a run.

The tests of the samples take part by themselves; any other one here may, with
`record_property("matrix", "<worker>/<case>")`.
"""

from __future__ import annotations

import pytest

from tests.consumers.samples import Sample

_WORDS = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}
_cells: dict[str, dict[str, str]] = {}


def pytest_itemcollected(item: pytest.Item) -> None:
    """A test that runs a sample is known before it does, so that a skipped one is shown, too."""
    if not isinstance(item, pytest.Function) or "broker_node" not in item.fixturenames:
        return
    params = item.callspec.params if hasattr(item, "callspec") else {}
    for sample in (value for value in params.values() if isinstance(value, Sample)):
        said = item.originalname.removeprefix("test_").replace("_", " ")
        cell = f"{sample.language}/{params.get('case', said)}"
        item.user_properties.append(("matrix", cell))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    for name, value in report.user_properties:
        if name == "matrix" and (report.when == "call" or not report.passed):
            worker, _, case = str(value).partition("/")
            known = _cells.setdefault(case, {})
            if known.get(worker) != "FAILED":
                known[worker] = _WORDS[report.outcome]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _cells:
        return
    workers = list(dict.fromkeys(worker for cells in _cells.values() for worker in cells))
    widths = [max(len(worker), len("skipped")) for worker in workers]
    first = max(len(case) for case in _cells)
    terminalreporter.section("workers and cases")
    head = [worker.ljust(width) for worker, width in zip(workers, widths, strict=True)]
    terminalreporter.write_line("  ".join([" " * first, *head]).rstrip())
    for case, cells in _cells.items():
        words = [cells.get(w, "-").ljust(width) for w, width in zip(workers, widths, strict=True)]
        terminalreporter.write_line("  ".join([case.ljust(first), *words]).rstrip())
