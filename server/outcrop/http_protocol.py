"""HTTP/1.1 and HTTP/2 on one port: uvicorn's protocols, less what strangers can do to them.

uvicorn's own leave a connection open for as long as its first request's head does not end, fail with a
traceback on a path that is not ASCII, and never tell the application that an HTTP/2 request ended with its
head, so that whoever reads its body waits for nothing.
"""

from __future__ import annotations

import asyncio

import zttp
from uvicorn.protocols.http.auto_zttp_impl import AutoZttpProtocol
from uvicorn.protocols.http.zttp_h2_impl import ZttpH2Protocol
from uvicorn.protocols.http.zttp_impl import ZttpProtocol

_PROTOCOL_ERROR = 1
"""The code with which HTTP/2 (RFC 9113 §7) resets the stream of a malformed request."""


class Http1Protocol(ZttpProtocol):
    """HTTP/1.1, with as long for a request's head as uvicorn allows between requests."""

    _head_deadline: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        answering = self.cycle is not None and not self.cycle.response_complete
        if answering:
            self._clear_head_deadline()
        elif self._head_deadline is None:
            # Not renewed by what comes next: a head that trickles in is no better than one that stopped.
            self._head_deadline = self.loop.call_later(self.timeout_keep_alive, self.transport.close)

    def connection_lost(self, exc: Exception | None) -> None:
        self._clear_head_deadline()
        super().connection_lost(exc)

    def handle_events(self, event: zttp.Event) -> None:
        try:
            super().handle_events(event)
        except UnicodeDecodeError:
            self.handle_remote_protocol_error()

    def _clear_head_deadline(self) -> None:
        if self._head_deadline is not None:
            self._head_deadline.cancel()
            self._head_deadline = None

    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: whoever asks to upgrade is answered in HTTP/1.1, as the protocol provides."""


class Http2Protocol(ZttpH2Protocol):
    """HTTP/2 whose requests may end with their head."""

    def handle_request(self, event: zttp.Request) -> None:
        if not event.path.isascii():
            self.conn.stream(event.stream_id).reset(_PROTOCOL_ERROR)
            return
        super().handle_request(event)
        if event.end_stream:
            cycle = self.cycles[event.stream_id]
            cycle.more_body = False
            cycle.message_event.set()


class HttpProtocol(AutoZttpProtocol):
    """Either, as the first bytes of a connection say."""

    def _switch(self, http2: bool, initial_data: bytes = b"") -> None:
        protocol_class = Http2Protocol if http2 else Http1Protocol
        protocol = protocol_class(self.config, self.server_state, self.app_state, self.loop)
        self.transport.set_protocol(protocol)
        protocol.connection_made(self.transport)
        if initial_data:
            protocol.data_received(initial_data)
