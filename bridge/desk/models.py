"""The topics that the deployed process models name, newest versions only.  Reads, and keeps
nothing; a topic that an expression makes is known to the engine alone.
"""

from __future__ import annotations

import re
import threading
from html import unescape
from typing import Any
from urllib.parse import quote

from pydantic import TypeAdapter, ValidationError

from bridge import plan
from bridge.engine.clock import EngineClock
from bridge.engine.http import EngineHttp
from bridge.errors import EngineError, EngineUnavailable
from bridge.settings import EngineSettings

# With more models than these nobody waits for an answer.
MODELS_MAX = 500
# Each engine has a namespace of its own for its extensions, with any prefix.
_TOPIC = re.compile(r"""\s[\w.-]+:topic\s*=\s*(["'])(.*?)\1""", re.DOTALL)
_ROWS = TypeAdapter(list[dict[str, Any]])
_MODEL = TypeAdapter(dict[str, Any])


def topics_in_models(engine: EngineSettings) -> set[str] | None:
    """The topics of all newest process models; None where that cannot be said: there are too many
    models, one may not be read, or one makes its topics by an expression.  Raises
    EngineUnavailable.
    """
    http = EngineHttp(plan.http_options(engine), EngineClock(), threading.Event())
    try:
        path = f"/process-definition?latestVersion=true&maxResults={MODELS_MAX + 1}"
        models = _ROWS.validate_json(http.call("GET", path).body)
        if len(models) > MODELS_MAX:
            return None
        found = {topic for model in models for topic in _topics(http, str(model["id"]))}
    except EngineUnavailable:
        raise
    except (EngineError, ValidationError, KeyError):
        return None
    return None if any("${" in topic or "#{" in topic for topic in found) else found


def topics_named(xml: str) -> set[str]:
    """The topics in one model; expressions as they stand there."""
    return {unescape(name) for _, name in _TOPIC.findall(xml)}


def _topics(http: EngineHttp, definition_id: str) -> set[str]:
    path = f"/process-definition/{quote(definition_id, safe='')}/xml"
    return topics_named(str(_MODEL.validate_json(http.call("GET", path).body)["bpmn20Xml"]))
