"""A transport that sends what is written in one go: uvicorn writes an answer's head and its body one by one.

Each write is a system call, which costs more than everything else about a page that is in memory.
"""

import asyncio
from collections.abc import Iterable
from typing import Any


class CorkedTransport(asyncio.Transport):
    """Passes everything on to another transport, and what is written at the end of the event loop's turn."""

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._transport = transport
        self._loop = loop
        self._written: list[bytes | bytearray | memoryview] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send with whatever else is written in this turn."""
        if not self._written:
            self._loop.call_soon(self._flush)
        self._written.append(data)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send all of it."""
        for data in list_of_data:
            self.write(data)

    @property
    def is_holding(self) -> bool:
        """Whether something was written in this turn."""
        return bool(self._written)

    def _flush(self) -> None:
        written, self._written = self._written, []
        if written and not self._transport.is_closing():  # whom it was for may have hung up within the turn
            self._transport.writelines(written)

    def write_eof(self) -> None:
        """Send what is written, and its end."""
        self._flush()
        self._transport.write_eof()

    def can_write_eof(self) -> bool:
        """Ask the transport."""
        return self._transport.can_write_eof()

    def close(self) -> None:
        """Close once everything is sent."""
        self._flush()
        self._transport.close()

    def abort(self) -> None:
        """Close at once."""
        self._written.clear()
        self._transport.abort()

    def is_closing(self) -> bool:
        """Ask the transport."""
        return self._transport.is_closing()

    def get_extra_info(self, name: str, default: Any = None) -> Any:  # noqa: ANN401
        """Ask the transport."""
        return self._transport.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Tell the transport."""
        self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Tell the transport."""
        self._transport.resume_reading()

    def is_reading(self) -> bool:
        """Ask the transport."""
        return self._transport.is_reading()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Tell the transport."""
        self._transport.set_protocol(protocol)

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Ask the transport."""
        return self._transport.get_protocol()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Tell the transport."""
        self._transport.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        """Tell how much is written and isn't sent."""
        return self._transport.get_write_buffer_size() + sum(len(data) for data in self._written)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Ask the transport."""
        return self._transport.get_write_buffer_limits()
