"""What may be logged of an engine's refusal: enough to act on, and no value of a variable."""

from __future__ import annotations

import json

import pytest

from bridge.engine.answers import classify
from bridge.errors import EngineRefused, EngineUnavailable


@pytest.mark.parametrize(
    ("status", "kind", "message", "brief"),
    [
        (400, "RestException", "Cannot convert '4711'", "400 RestException"),
        (500, "ProcessEngineException", "no: 4711", "500 ProcessEngineException"),
        (500, "ScriptEvaluationException", "4711: failed: x", "500 ScriptEvaluationException"),
        (403, "AuthorizationException", "no right", "403 AuthorizationException: no right"),
        (400, "RestException", "x is suspended", "400 RestException: x is suspended"),
    ],
)
def test_what_an_engine_quotes_is_not_logged(
    status: int, kind: str, message: str, brief: str
) -> None:
    """An expression of a process quotes what it could not read; a missing right has no values."""
    error = classify(status, json.dumps({"type": kind, "message": message, "code": 0}).encode())

    assert error is not None
    assert error.brief == brief
    assert message in str(error)  # for the incident, beside the variables


@pytest.mark.parametrize(
    "text",
    [
        "no connection: Connection refused",
        "TLS: certificate has expired; renew it",
        "413: too large for the engine, or for a proxy on the way",
        "400 without a reason: the request cannot be read",
        "503: the engine is busy or away",
    ],
)
def test_our_own_words_are_logged_in_full(text: str) -> None:
    """They are what an operator acts on."""
    assert EngineUnavailable(text).brief == text
    assert EngineRefused(text).brief == text
