"""The settings of one bridge: read, checked, frozen.  Begin at `loader`; `model` has every key."""

from bridge.settings.loader import load, read_token_keys
from bridge.settings.model import (
    Address,
    BrokerSettings,
    EngineSettings,
    Settings,
    StatusSettings,
    TopicSettings,
)
from bridge.settings.values import duration_text, parse_duration

__all__ = [
    "Address",
    "BrokerSettings",
    "EngineSettings",
    "Settings",
    "StatusSettings",
    "TopicSettings",
    "duration_text",
    "load",
    "parse_duration",
    "read_token_keys",
]
