"""Everything that would fail, found in one look that touches nothing.  Begin at `check`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from bridge.check import advice, broker, engine
from bridge.check.findings import Finding, as_json, as_text, exit_code, problem
from bridge.errors import SettingsError
from bridge.settings import certificate_problems, load

__all__ = ["Finding", "as_json", "as_text", "check", "exit_code"]

_SENTENCE = re.compile(r'((?:"(?:[^"\\]|\\.)*"|[^":])+): (.*)', re.DOTALL)


def check(config: Path | None, environ: Mapping[str, str]) -> list[Finding]:
    """Look at settings, engine and broker; each look is independent of the others and bounded.

    Unusable settings are all that is found: there is nothing to look with.
    """
    try:
        settings = load(config, environ)
    except SettingsError as error:
        return [_settings_problem(sentence) for sentence in error.problems]
    if unusable := certificate_problems(settings):
        return [_settings_problem(sentence) for sentence in unusable]
    return [*advice.look(settings), *engine.look(settings), *broker.look(settings)]


def _settings_problem(sentence: str) -> Finding:
    found = _SENTENCE.fullmatch(sentence)
    key, text = (found[1], found[2]) if found else ("", sentence)
    what, _, cure = text.partition("; ")
    return problem("settings", key, what, cure)
