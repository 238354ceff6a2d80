"""The settings of one bridge: read, checked, frozen.  Begin at `loader`; `model` has every key."""

from bridge.settings.certificates import certificate_problems
from bridge.settings.loader import load, read_token_keys
from bridge.settings.model import (
    Address,
    BrokerSettings,
    EngineSettings,
    Settings,
    StatusSettings,
    TopicSettings,
)
from bridge.settings.secrets import known_secrets
from bridge.settings.values import duration_text, parse_duration

__all__ = [
    "Address",
    "BrokerSettings",
    "EngineSettings",
    "Settings",
    "StatusSettings",
    "TopicSettings",
    "certificate_problems",
    "duration_text",
    "known_secrets",
    "load",
    "parse_duration",
    "read_token_keys",
]
