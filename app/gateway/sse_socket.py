"""A `Socket` on the answer to an HTTP request: Server-Sent Events, as a browser's `EventSource` reads them.

The client answers nothing, so a ping is a comment, and its pong is that the peer's TCP has acknowledged all
that came before it; where that cannot be seen, that the server has taken it.

`EventSource` comes back by itself whenever a stream ends, for ever, and stops at any status but 200. So the
answer begins with the first thing there is to say, and what ends a connection for good before that is a
status. After that it is an id that begins with `FINAL`: the browser sends it back, and is told 204. Only a
token that expires ends a stream as if it might go on: where the page has renewed its cookie, it does.
"""

import asyncio
import random
from typing import Final

from app.core import messages
from app.core.close_codes import CloseCode

from .asgi_socket import Message, Receive, Send
from .socket import OUTGOING, Beside, OpenEvents, Outgoing, SocketEvents

CLOSE_TIMEOUT = 3.0
"""Seconds that the end of a stream may take to be written."""
RETRY = (1000, 4000)
"""Milliseconds between which a client waits before it comes back, so that not all come at once when a process
died."""
RETRY_NOW = 250
"""The same where it was told to come back now: at this process's end clients go one after the other."""
FINAL: Final = "!"
"""What no position begins with."""
STATUS: Final = {
    CloseCode.BAD_REQUEST: 400,
    CloseCode.UNAUTHENTICATED: 401,
    CloseCode.NOT_ALLOWED: 403,
    CloseCode.REPLACED: 409,
}
"""The ends after which a client should not come back by itself, as statuses of HTTP."""

_FIRST_LOOK = 0.005
_LAST_LOOK = 0.5


async def serve_stream(scope: Message, receive: Receive, send: Send, open_events: OpenEvents) -> None:
    """Answer a request by what `open_events` makes of its socket; returns when the stream has ended."""
    outgoing = scope.get("extensions", {}).get(OUTGOING)
    await SseSocket(receive, send, stream_headers(scope), outgoing).run(open_events)


def stream_headers(scope: Message) -> list[tuple[bytes, bytes]]:
    """The headers of a stream; no proxy is to keep or collect it, and the connection ends with it."""
    headers = [
        (b"content-type", b"text/event-stream"),
        (b"cache-control", b"no-cache, no-transform"),
        (b"x-accel-buffering", b"no"),
    ]
    # A browser that came back on the same connection would reach the process that is just leaving.
    return [*headers, (b"connection", b"close")] if scope["http_version"].startswith("1") else headers


def retry_block(after_ms: int) -> bytes:
    """How long the client is to wait before it comes back."""
    return b"retry: %d\n\n" % after_ms


def message_block(message: bytes, position: str = "") -> bytes:
    """One message, which is a single line of JSON, with the position that the client has with it."""
    return b"id: %b\ndata: %b\n\n" % (position.encode(), message) if position else b"data: %b\n\n" % message


class SseSocket:
    """A `Socket` whose messages are the body of one HTTP response."""

    confirms = False

    def __init__(
        self, receive: Receive, send: Send, headers: list[tuple[bytes, bytes]], outgoing: Outgoing | None
    ) -> None:
        self._receive = receive
        self._send = send
        self._headers = headers
        self._outgoing = outgoing
        self._loop = asyncio.get_running_loop()
        self._events: SocketEvents | None = None
        self._waiting = [retry_block(random.randint(*RETRY))]  # noqa: S311 - spreads, hides nothing
        self._given = len(self._waiting[0])
        """Bytes ever put among what waits, and those of them that the server has taken."""
        self._taken = 0
        self._asked_at: int | None = None
        """How many bytes had been given before the outstanding ping."""
        self._pause = _FIRST_LOOK
        self._position = ""
        self._told_position = ""
        self._started = False
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._life = asyncio.timeout(None)
        self._closing = False
        self._close_code: int | None = None

    # ---- what a connection may do

    @property
    def beside(self) -> Beside:
        """An SSE client learns its position beside the messages."""
        return self

    @property
    def writable(self) -> bool:
        """False while something waits to be taken by the server."""
        return not self._waiting

    def position(self, token: str) -> None:
        """Tell what the client has with whatever is sent next."""
        self._position = token

    def send(self, message: bytes) -> None:
        """Send one message, with the position last told if it is a new one."""
        self._write(message_block(message, self._new_position()))

    def ping(self) -> None:
        """Send a comment, and report a pong once the peer has taken everything before it."""
        if self._closing:
            return
        self._asked_at = self._given
        self._pause = _FIRST_LOOK
        # First, since the comment itself needs no acknowledgement.
        self._loop.call_soon(self._look)
        position = self._new_position()
        self._write(b":\nid: %b\n\n" % position.encode() if position else b":\n\n")

    def flush(self) -> None:
        """Nothing to do: whatever is sent is written when the server can take it."""

    def close(self, code: int, reason: str = "") -> None:
        """End the stream so that a browser does by itself what the code asks of it."""
        if self._closing:
            return
        status = STATUS.get(CloseCode(code))
        error = messages.error(CloseCode(code).name.lower(), reason)
        if status is not None and not self._started:
            self._waiting = [error]
            self._headers = [(b"content-type", b"application/json")]
        elif code == CloseCode.GOING_AWAY:
            self._write(retry_block(RETRY_NOW))
        else:
            # After an expiry the browser comes back by itself, with a new cookie or to a 401.
            is_final = status is not None and code != CloseCode.UNAUTHENTICATED
            self._write(message_block(error, f"{FINAL}{code}" if is_final else ""))
        self._closing = True
        self._close_code = code
        self._begin_to_write(status or 200)
        self._timer_off()
        self._timer = self._loop.call_later(CLOSE_TIMEOUT, self.abort)

    def abort(self) -> None:
        """Drop the connection; elsewhere than under our own host, leave it to the server."""
        self._closing = True
        self._waiting.clear()
        if self._outgoing is not None:
            self._outgoing.abort()
        elif self._events is not None and not self._life.expired():
            self._life.reschedule(0)

    # ---- what carries it

    async def run(self, open_events: OpenEvents) -> None:
        """Carry the connection until it ends."""
        try:
            async with self._life:
                self._events = open_events(self)
                while (await self._receive())["type"] != "http.disconnect":
                    pass
        except TimeoutError:
            if not self._life.expired():  # else we aborted it ourselves
                raise
        finally:
            self._closing = True
            self._timer_off()
            if self._writer is not None:
                self._writer.cancel()
            events, self._events = self._events, None
            if events is not None:
                events.on_closed(self._close_code)

    def _new_position(self) -> str:
        if self._position == self._told_position:
            return ""
        self._told_position = self._position
        return self._position

    def _write(self, block: bytes) -> None:
        if not self._closing:
            self._waiting.append(block)
            self._given += len(block)
            self._begin_to_write(200)

    def _begin_to_write(self, status: int) -> None:
        if self._writer is None:
            self._writer = self._loop.create_task(self._write_all(None if self._started else status))
            self._started = True

    async def _write_all(self, status: int | None) -> None:
        try:
            if status is not None:
                await self._send({"type": "http.response.start", "status": status, "headers": self._headers})
            while self._waiting:
                body = b"".join(self._waiting)
                self._waiting.clear()
                await self._send({"type": "http.response.body", "body": body, "more_body": True})
                self._taken += len(body)
                self._look()
            if self._closing:
                await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except Exception:  # noqa: BLE001  servers differ in what they raise once the peer is gone
            self.abort()
        finally:
            self._writer = None

    def _look(self) -> None:
        """See whether the peer has taken everything before the ping, and look again later if not."""
        if self._asked_at is None or self._closing or self._taken < self._asked_at:
            return
        unacknowledged = None if self._outgoing is None else self._outgoing.unacknowledged()
        if unacknowledged is None or unacknowledged <= self._taken - self._asked_at:
            self._asked_at = None
            self._timer_off()
            if self._events is not None:
                self._events.on_pong()
        elif self._timer is None:
            self._timer = self._loop.call_later(self._pause, self._look_again)
            self._pause = min(2 * self._pause, _LAST_LOOK)

    def _look_again(self) -> None:
        self._timer = None
        self._look()

    def _timer_off(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
