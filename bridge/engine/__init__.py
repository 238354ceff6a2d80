"""The engine's external-task REST API.  `http` is the only module that imports requests."""

from bridge.engine.client import EngineClient, Fetched, Observed
from bridge.engine.clock import EngineClock

__all__ = ["EngineClient", "EngineClock", "Fetched", "Observed"]
