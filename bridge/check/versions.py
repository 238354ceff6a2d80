"""Versions as numbers, to be compared.  Knows no product."""

from __future__ import annotations

import re


def numbers(version: str) -> tuple[int, ...]:
    """The first two numbers of a version such as "3.10.8" or "7.24.0-SNAPSHOT"."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:2])
