"""uvicorn's WebSocket protocol, used up to the accept and then left behind.

An application finds `attach` in `scope["extensions"][EXTENSION]`. Called after the accept it moves the
transport to a `LiveSocket`, and the ASGI coroutine may return: what uvicorn still does to its protocol
afterwards reaches a transport that leads nowhere. An application that does not attach gets uvicorn's protocol
as it is.
"""

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from app.gateway.socket import EXTENSION, OpenEvents

from .live import LiveSocket, SocketHost
from .options import HEAD_REFUSED
from .tcp import set_user_timeout

_EARLY_SIZE = 64 << 10


class _Nowhere(asyncio.Transport):
    """The transport of a protocol that has given its own away."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass

    def write(self, data: bytes | bytearray | memoryview) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


_NOWHERE = _Nowhere()


class HandshakeProtocol(WebSocketsSansIOProtocol):
    """uvicorn's protocol with a way out; `install` makes a subclass that knows its host."""

    host: ClassVar[SocketHost]
    user_timeout: ClassVar[float]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # At debug level the library logs the request line and all headers, tokens included.
        self.conn.debug = False
        self._early: bytearray | None = bytearray()

    async def run_asgi(self) -> None:
        """Run the application with the way out in its scope."""
        self._extensions()[EXTENSION] = self.attach
        await super().run_asgi()

    def attach(self, open_events: OpenEvents) -> None:
        """Hand the accepted connection over to what `open_events` makes of its socket.

        Raises RuntimeError before the accept, and after the first `receive` that followed it.
        """
        early, transport = self._early, self.transport
        if self.disconnected or transport.is_closing():
            # As far as it could be: else uvicorn blames the application for what the client did.
            self.handshake_complete = True
            self.loop.call_soon(LiveSocket(self.host, transport, open_events).connection_lost, None)
            return
        if not self.handshake_complete or early is None:
            raise RuntimeError("attach belongs between the accept and the first receive after it")
        live = LiveSocket(self.host, transport, open_events)
        self.host.connections.discard(self)
        self.host.connections.add(live)
        transport.set_protocol(live)
        transport.set_write_buffer_limits(high=self.host.high_water)
        set_user_timeout(transport, self.user_timeout)
        if early:
            self.loop.call_soon(live.data_received, bytes(early))
            transport.resume_reading()
        self._let_go()

    def data_received(self, data: bytes) -> None:
        """Read the request; keep what follows for whoever takes the connection."""
        if self.handshake_initiated and self._early is not None:
            self._early += data
            if len(self._early) > _EARLY_SIZE:
                self.transport.pause_reading()
        else:
            super().data_received(data)
            if not self.handshake_initiated and not self.transport.is_closing():
                # uvicorn hands over whole heads only. One with lines too long or too many for the library
                # gets no answer from either of them, and its connection would be kept for ever.
                self.handshake_complete = True
                self.transport.write(HEAD_REFUSED)
                self.transport.close()

    def start_keepalive(self) -> None:
        """Leave pings to the connection; without one, they begin with the first receive."""

    async def receive(self) -> Any:
        """Go uvicorn's own way from the first receive after the accept."""
        if self.handshake_complete and self._early is not None:
            early, self._early = self._early, None
            super().start_keepalive()
            if early and not self.disconnected:
                self.transport.resume_reading()
                super().data_received(bytes(early))
        return await super().receive()

    async def send(self, message: Any) -> None:
        """Note that a refusal completes the handshake too; uvicorn would log an error for each."""
        await super().send(message)
        if self.initial_response is not None and self.close_sent:
            self.handshake_complete = True

    def _extensions(self) -> dict[str, Any]:
        return cast("dict[str, Any]", self.scope["extensions"])

    def _let_go(self) -> None:
        """Break every circle, so that the handshake's objects go now and not when the collector comes."""
        self._early = None
        self.disconnected = True
        self.transport = _NOWHERE
        self.conn.parser.close()
        self._extensions().pop(EXTENSION)
