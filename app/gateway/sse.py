"""`GET /realtime/events`: from the request to a registered connection, for clients that only listen.

On the ASGI level for the same reasons as the WebSocket. What must not be tried again is told by a status,
at which a browser's `EventSource` stops for good. What passes is told one in its stream, since it would stop
at that too; any other client gets a status and Retry-After.
"""

import random

from app.core import messages
from app.core.close_codes import CloseCode
from app.core.wishes import Wishes
from app.gateway.admission import Guest, Reception, Refusal, header, query
from app.gateway.asgi_socket import Message, Receive, Send
from app.gateway.connection import Surroundings
from app.gateway.door import Door, Turned
from app.gateway.sse_socket import FINAL, STATUS, message_block, retry_block, serve_stream, stream_headers
from app.http import REALM, challenge

PATH = "/realtime/events"
RETRY_AFTER = 5
"""Seconds after which somebody refused for now may ask again."""

FULL = Refusal(
    CloseCode.INTERNAL_ERROR, "unavailable", "This process takes no more connections; try again later."
)


class SseEndpoint:
    """Answers requests for a stream, and turns each into a connection of its user."""

    def __init__(self, door: Door, reception: Reception, surroundings: Surroundings) -> None:
        self._door = door
        self._reception = reception
        self._surroundings = surroundings

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request; this returns when its stream has ended."""
        if scope["method"] != "GET":
            await _answer(send, 405, messages.error("method_not_allowed", "Use GET."), (b"allow", b"GET"))
            return
        turned = self._door.turns_away(scope)
        if turned is not None:
            await _turn_away(scope, send, turned)
            return
        last_event_id = header(scope, b"last-event-id")
        if last_event_id is not None and last_event_id.startswith(FINAL):
            await _answer(send, 204, b"")
            return
        admitted = await self._reception.admit(scope, receive, by_cookie=True)
        if isinstance(admitted, Guest):
            wishes = Wishes.parse(query(scope).get("position"), last_event_id=last_event_id)
            open_events = self._reception.connects(admitted, wishes, self._surroundings)
            await serve_stream(scope, receive, send, open_events)
        else:
            await _refuse(scope, send, admitted or FULL)


async def _refuse(scope: Message, send: Send, refusal: Refusal) -> None:
    error = messages.error(refusal.code, refusal.message, refusal.after_ms)
    lasting = STATUS.get(refusal.close_code)
    if lasting is not None:
        told = challenge(REALM, gave_nothing=refusal.gave_nothing) if lasting == 401 else {}
        headers = [(name.lower().encode(), value.encode()) for name, value in told.items()]
        await _answer(send, lasting, error, *headers)
    else:
        status = 429 if refusal.close_code is CloseCode.TOO_MANY else 503
        await _ask_to_wait(scope, send, status, error, RETRY_AFTER)


async def _turn_away(scope: Message, send: Send, turned: Turned) -> None:
    error = messages.error(turned.code, turned.message)
    if turned.retry_after is None:
        await _answer(send, turned.status, error)
    else:
        await _ask_to_wait(scope, send, turned.status, error, turned.retry_after)


async def _ask_to_wait(scope: Message, send: Send, status: int, error: bytes, seconds: int) -> None:
    if "text/event-stream" in (header(scope, b"accept") or ""):
        after_ms = random.randint(seconds * 1000, seconds * 2000)  # noqa: S311 - spreads, hides nothing
        await send({"type": "http.response.start", "status": 200, "headers": stream_headers(scope)})
        await send({"type": "http.response.body", "body": retry_block(after_ms) + message_block(error)})
    else:
        await _answer(send, status, error, (b"retry-after", b"%d" % seconds))


async def _answer(send: Send, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    if body:
        headers = (*headers, (b"content-type", b"application/json"), (b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})
