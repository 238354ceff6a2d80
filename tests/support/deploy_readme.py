"""The commands that deploy/README.md tells people to type."""

from __future__ import annotations

import re
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / "deploy" / "README.md"


def commands(section: str) -> list[str]:
    """The lines of the first block of a section, those that a backslash continues joined."""
    found = re.search(
        rf"^## {re.escape(section)}\n.*?^```\n(.*?)^```$", FILE.read_text(), re.M | re.S
    )
    assert found, f"deploy/README.md has no commands in {section!r}"
    return re.sub(r"\s*\\\n\s*", " ", found.group(1)).splitlines()
