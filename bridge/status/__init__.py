"""What the bridge shows of itself: health, metrics, the snapshot and the live page.  Reads the
rooms, changes nothing; tells ids and counts, never a variable's value or a secret.
"""

from bridge.status.explained import Explained
from bridge.status.gauges import Gauges
from bridge.status.overview import Observatory, Overview, TopicView
from bridge.status.server import NotAnswered, StatusServer
from bridge.status.snapshot import Snapshot

__all__ = [
    "Explained",
    "Gauges",
    "NotAnswered",
    "Observatory",
    "Overview",
    "Snapshot",
    "StatusServer",
    "TopicView",
]
