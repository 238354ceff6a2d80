"""The engine's external-task REST API.  `http` is the only module that imports requests."""

from bridge.engine.client import EngineClient, Fetched, Observed
from bridge.engine.clock import EngineClock, lock_window
from bridge.engine.gate import MAX_RETRY_AFTER_SECONDS, Gate

__all__ = [
    "MAX_RETRY_AFTER_SECONDS",
    "EngineClient",
    "EngineClock",
    "Fetched",
    "Gate",
    "Observed",
    "lock_window",
]
