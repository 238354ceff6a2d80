"""What consumers/ claims of its samples, held by reading the files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.consumers.samples import SAMPLES, Sample
from tests.consumers.stacks import CONSUMERS

FIFTY = 50
README = (CONSUMERS / "README.md").read_text(encoding="utf-8")
EACH = pytest.mark.parametrize("sample", SAMPLES, ids=lambda sample: sample.language)


def statements(source: Path) -> list[str]:
    """The lines of a program: no documentation, no imports, no blanks and no lone brackets."""
    apart = re.compile(r'"""[^"]*"""|/\*\*.*?\*/|^import \(.*?^\)', re.DOTALL | re.MULTILINE)
    text = apart.sub("", source.read_text(encoding="utf-8"))
    dull = re.compile(r"\s*((//|#|import |package ).*|[\])}\s;,]*)")
    return [line for line in text.splitlines() if not dull.fullmatch(line)]


@EACH
def test_a_sample_is_read_in_a_minute(sample: Sample) -> None:
    """A worker developer copies what fits on one screen."""
    found = statements(sample.folder / sample.source)

    assert 20 < len(found) < FIFTY, len(found)


@EACH
def test_a_sample_leaves_the_queues_to_the_bridge(sample: Sample) -> None:
    """Declared again with other arguments, a queue closes the channel of whoever comes second."""
    source = (sample.folder / sample.source).read_text().lower()

    assert not re.search(r"queue_?declare|assertqueue", source)


@EACH
def test_a_sample_has_a_page_with_its_command(sample: Sample) -> None:
    """One screen, one command."""
    page = (sample.folder / "README.md").read_text(encoding="utf-8")

    assert len(page.splitlines()) <= 40
    assert "AMQP_URL=" in page
    assert sample.source in page
    assert f"]({sample.language}/" in README


def test_no_lock_file_names_a_registry() -> None:
    """Behind a company's mirror such an address would not be reached."""
    lock = (CONSUMERS / "javascript" / "package-lock.json").read_text()

    assert "integrity" in lock
    assert "http" not in lock
