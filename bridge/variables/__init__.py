"""Variables, both ways and without loss: the engine's typed values and plain JSON."""

from bridge.variables.from_engine import plain
from bridge.variables.to_engine import names_allowed, typed

__all__ = ["names_allowed", "plain", "typed"]
