"""What a connection may take, where uvicorn has no setting for it.

uvicorn waits for ever for the rest of a request's head and for a client that reads no answer, and once its connections
are used up it answers 503 to everybody. Here whoever keeps the server waiting is the one that goes.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from types import FrameType
from typing import cast

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

__all__ = ["Connection", "Server"]

# Bytes that are parsed in one go. Of the worst kind, chunks of a byte, a long piece would take half a second before the
# request could be refused; a body of a stated length costs nothing to parse.
_SHORT, _LONG = 1 << 12, 1 << 18


class Connection(H11Protocol):
    """uvicorn's connection with two deadlines, both `timeout_keep_alive`: from its opening, or from its last answer, to
    the end of a request's head; and for the client to take what it is sent.

    A connection too many (`limit_concurrency`) ends the oldest of those that keep the server waiting, be it for a head,
    for a body or for an answer to be read: clients that were let in come again, one that is new should get in.
    """

    _opened = 0.0
    _unread: asyncio.TimerHandle | None = None

    @property
    def _sends_body(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete and self.cycle.more_body

    @property
    def _keeps_waiting(self) -> bool:
        rests = self.cycle is None or self.cycle.response_complete
        return rests or self._sends_body or self.flow.write_paused

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, and make room."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # "paused" is then: not all was taken
        self._read_pieces(_SHORT)
        self._opened = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )
        self._make_room()

    def _make_room(self) -> None:
        self.limit_concurrency = None  # uvicorn's own way
        most = self.config.limit_concurrency
        if most is None or len(self.connections) <= most:
            return
        left = [cast(Connection, one) for one in self.connections if not one.transport.is_closing()]
        waiting = sorted(
            (one for one in left if one is not self and one._keeps_waiting), key=lambda one: one._opened
        )
        for one in waiting[: max(0, len(left) - most)]:
            one.transport.abort()

    def _read_pieces(self, size: int) -> None:
        if hasattr(self.transport, "max_size"):  # asyncio's, not uvloop's
            self.transport.max_size = size

    def data_received(self, data: bytes) -> None:
        """Read; unlike uvicorn's, without stopping the clock for every byte."""
        self.conn.receive_data(data)
        self.handle_events()

    def handle_events(self) -> None:
        """Stop the clock where a request's head is whole."""
        before = self.cycle
        super().handle_events()
        if self.cycle is not before:
            self._unset_keepalive_if_required()
            if all(name != b"transfer-encoding" for name, _ in self.headers):
                self._read_pieces(_LONG)

    def on_response_complete(self) -> None:
        """Wait for the next head."""
        self._read_pieces(_SHORT)
        super().on_response_complete()

    def pause_writing(self) -> None:
        """Wait for the client to read, but not for ever."""
        super().pause_writing()
        self._unread = self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on: all was taken."""
        super().resume_writing()
        self._stop_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        super().connection_lost(exc)
        self._stop_unread()
        self._unset_keepalive_if_required()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def shutdown(self) -> None:
        """Finish what is being answered; what has not wholly arrived is dropped."""
        if self._sends_body:
            self.transport.abort()
        else:
            super().shutdown()


class Server(uvicorn.Server):
    """uvicorn's server; the first signal ends it in good order, the second at once."""

    stopped_by = 0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to stop. The next signal ends the process itself, whatever any thread is doing."""
        self.stopped_by, self.should_exit = sig, True
        end_by_signals()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Take no more connections, drop what has not arrived, wait for what is being answered."""
        for server in self.servers:
            server.close()
        await asyncio.sleep(0.01)  # until what was accepted last is among the connections
        await super().shutdown(sockets)


def end_by_signals() -> None:
    """Let SIGINT and SIGTERM end this process without a word, no matter what Python is doing."""
    for one in (signal.SIGINT, signal.SIGTERM):
        signal.signal(one, signal.SIG_DFL)
