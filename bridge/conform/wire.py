"""AMQP 0-9-1 frames, as far as a relay has to understand them.  Pure: no I/O."""

from __future__ import annotations

import struct
from dataclasses import dataclass

_HEADER = struct.Struct(">BHI")
_GREETING = b"AMQP"
_METHOD = 1
_BASIC = 60
_PUBLISH, _ACK, _REJECT, _NACK = 40, 80, 90, 120


@dataclass(frozen=True, slots=True)
class Frame:
    """One whole frame, `raw` as it came; the greeting of a connection counts as one."""

    raw: bytes

    @property
    def _method(self) -> tuple[int, int] | None:
        """Class and method of a method frame."""
        if self.raw[0] != _METHOD:
            return None
        number: tuple[int, int] = struct.unpack_from(">HH", self.raw, 7)
        return number

    @property
    def destination(self) -> tuple[str, str] | None:
        """Exchange and routing key of a basic.publish; None for any other frame."""
        if self._method != (_BASIC, _PUBLISH):
            return None
        exchange, at = self._short_text(13)
        return exchange, self._short_text(at)[0]

    @property
    def settles(self) -> bool:
        """Whether it is a basic.ack, or a basic.reject or basic.nack without requeue."""
        return self._method in ((_BASIC, _ACK), (_BASIC, _REJECT), (_BASIC, _NACK)) and (
            not self.requeues
        )

    @property
    def requeues(self) -> bool:
        """Whether it is a basic.reject or basic.nack that gives a message back."""
        method = self._method
        # The bits follow the delivery tag; a nack has `multiple` before `requeue`.
        if method == (_BASIC, _REJECT):
            return bool(self.raw[19] & 1)
        return method == (_BASIC, _NACK) and bool(self.raw[19] & 2)

    def _short_text(self, at: int) -> tuple[str, int]:
        end = at + 1 + self.raw[at]
        return self.raw[at + 1 : end].decode(errors="replace"), end


class Frames:
    """Cuts a stream of bytes into frames."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that are whole now."""
        self._rest += data
        found = []
        while (size := self._size()) is not None and len(self._rest) >= size:
            found.append(Frame(self._rest[:size]))
            self._rest = self._rest[size:]
        return found

    def _size(self) -> int | None:
        if self._rest.startswith(_GREETING):
            return 8
        if len(self._rest) < _HEADER.size:
            return None
        payload: int = _HEADER.unpack_from(self._rest)[2]
        return _HEADER.size + payload + 1
