"""`WS /realtime/ws`: from the handshake to a registered connection.

On the ASGI level, because a framework's WebSocket route costs a third of the memory of an idle
connection and half the rate of sending (bench/connection_cost.py).
"""

from app.core import messages
from app.core.wishes import Wishes
from app.gateway.admission import Guest, Reception, query, refuses
from app.gateway.asgi_socket import Message, Receive, Send, serve_socket
from app.gateway.connection import Surroundings
from app.gateway.door import Door, Turned
from app.http import path_of

PATH = "/realtime/ws"
SUBPROTOCOL = "mindvibe.v1"
"""What is answered where it was offered; a browser offers its token beside it and must not get that back."""


NO_WEBSOCKET = Turned(404, "not_found", "There is no WebSocket here; connect to /realtime/ws.")
FULL = Turned(503, "unavailable", "This process takes no more connections; try again.", 5)


class WebSocketEndpoint:
    """Accepts WebSockets, and turns each into a connection of its user."""

    def __init__(
        self, door: Door, reception: Reception, surroundings: Surroundings, *, message_size: int
    ) -> None:
        self._door = door
        self._reception = reception
        self._surroundings = surroundings
        self._message_size = message_size

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one WebSocket; under our own host this returns as soon as the connection stands."""
        await receive()  # websocket.connect
        if path_of(scope) != PATH:
            await _refuse(send, scope, NO_WEBSOCKET)
            return
        turned = self._door.turns_away(scope)
        if turned is not None:
            await _refuse(send, scope, turned)
            return
        admitted = await self._reception.admit(scope, receive)
        if admitted is None:
            await _refuse(send, scope, FULL)
            return
        subprotocol = SUBPROTOCOL if SUBPROTOCOL in scope.get("subprotocols", ()) else None
        await send({"type": "websocket.accept", "subprotocol": subprotocol})
        if isinstance(admitted, Guest):
            asked = query(scope)
            wishes = Wishes.parse(asked.get("position"), acks=asked.get("ack") == "1")
            open_events = self._reception.connects(admitted, wishes, self._surroundings)
        else:
            open_events = refuses(admitted)
        await serve_socket(scope, receive, send, open_events, message_size=self._message_size)


async def _refuse(send: Send, scope: Message, turned: Turned) -> None:
    """Refuse before the accept, with a reason where the server can carry one."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1013})
        return
    headers = [(b"content-type", b"application/json")]
    if turned.retry_after is not None:
        headers.append((b"retry-after", b"%d" % turned.retry_after))
    await send({"type": "websocket.http.response.start", "status": turned.status, "headers": headers})
    await send({"type": "websocket.http.response.body", "body": messages.error(turned.code, turned.message)})
