"""A `Socket` on plain ASGI messages, for every server whose connections cannot be taken over.

Pongs cannot be seen here, so acceptance by the transport has to do for a confirmation. The reader is the ASGI
coroutine itself; a writer task exists only while there is something to write.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from .socket import EXTENSION, OpenEvents, SocketEvents

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_MARK: Message = {"type": "mindvibe.mark"}
"""Stands among what waits for the server, and is never sent."""
HIGH_WATER = 64 << 10
MESSAGE_SIZE = 64 << 10
CLOSE_TIMEOUT = 3.0


async def serve_socket(
    scope: Message,
    receive: Receive,
    send: Send,
    open_events: OpenEvents,
    *,
    message_size: int = MESSAGE_SIZE,
    high_water: int = HIGH_WATER,
    close_timeout: float = CLOSE_TIMEOUT,
) -> None:
    """Serve an accepted WebSocket by what `open_events` makes of its socket.

    Under our own host this returns at once and the connection goes on without a coroutine; elsewhere it
    returns when the connection has ended. To be awaited directly after the accept. Sizes are bytes (of a
    client's message; of unsent messages above which the socket is not writable), `close_timeout` seconds.
    """
    attach = scope.get("extensions", {}).get(EXTENSION)
    if attach is not None:
        attach(open_events)
        return
    await AsgiSocket(receive, send, message_size, high_water, close_timeout).run(open_events)


class AsgiSocket:
    """A `Socket` over an ASGI connection that has been accepted."""

    confirms = False
    beside = None

    def __init__(
        self, receive: Receive, send: Send, message_size: int, high_water: int, close_timeout: float
    ) -> None:
        self._receive = receive
        self._send = send
        self._message_size = message_size
        self._high_water = high_water
        self._close_timeout = close_timeout
        self._events: SocketEvents | None = None
        self._waiting: deque[Message] = deque()
        self._waiting_bytes = 0
        self._writer: asyncio.Task[None] | None = None
        self._life = asyncio.timeout(None)
        self._writable = True
        self._closing = False
        self._ended = False
        self._close_code: int | None = None

    @property
    def writable(self) -> bool:
        """False while more than the high-water mark waits to be taken by the server."""
        return self._writable

    def send(self, message: bytes) -> None:
        """Hand one text message to the server, in its turn."""
        if not self._closing:
            self._waiting_bytes += len(message)
            self._writable = self._waiting_bytes <= self._high_water
            self._write({"type": "websocket.send", "text": message.decode()})

    def ping(self) -> None:
        """Report a pong once the server has taken everything sent before: ASGI has no pings."""
        if not self._closing:
            self._write(_MARK)

    def flush(self) -> None:
        """Nothing to do: whatever is sent is handed over in its turn."""

    def close(self, code: int, reason: str = "") -> None:
        """Close after what was sent before; drop when that takes too long."""
        if not self._closing:
            self._closing = True
            self._close_code = code
            self._write({"type": "websocket.close", "code": code, "reason": reason})
            self._life.reschedule(asyncio.get_running_loop().time() + self._close_timeout)

    def abort(self) -> None:
        """Leave the connection to the server, which drops it when the application has returned."""
        self._closing = True
        self._waiting.clear()
        if not self._ended and not self._life.expired():
            self._life.reschedule(0)

    async def run(self, open_events: OpenEvents) -> None:
        """Carry the connection until it ends."""
        try:
            async with self._life:
                self._events = open_events(self)
                await self._read(self._events)
        except TimeoutError:
            if not self._life.expired():  # else we closed or aborted it ourselves
                raise
        finally:
            self._closing = self._ended = True
            if self._writer is not None:
                self._writer.cancel()
            events, self._events = self._events, None
            if events is not None:
                events.on_closed(self._close_code)

    async def _read(self, events: SocketEvents) -> None:
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                if self._close_code is None:
                    self._close_code = message.get("code")
                return
            if not self._closing:
                self._pass_on(message, events)

    def _pass_on(self, message: Message, events: SocketEvents) -> None:
        text = message.get("text")
        if text is None:
            events.on_binary(len(message.get("bytes") or b""))
        elif len(text) > self._message_size or len(text.encode()) > self._message_size:
            events.on_too_large()
        else:
            events.on_text(text)

    def _write(self, message: Message) -> None:
        self._waiting.append(message)
        if self._writer is None:
            self._writer = asyncio.get_running_loop().create_task(self._write_all())

    async def _write_all(self) -> None:
        try:
            while self._waiting:
                message = self._waiting.popleft()
                if message is _MARK:
                    self._tell_pong()
                    continue
                await self._send(message)
                self._taken(message)
        except Exception:  # noqa: BLE001  servers differ in what they raise once the peer is gone
            self.abort()
        finally:
            self._writer = None

    def _tell_pong(self) -> None:
        if self._events is not None and not self._closing:
            self._events.on_pong()

    def _taken(self, message: Message) -> None:
        self._waiting_bytes -= len(message.get("text", "").encode())
        if not self._writable and self._waiting_bytes <= self._high_water // 4:
            self._writable = True
            if self._events is not None and not self._closing:
                self._events.on_writable()
