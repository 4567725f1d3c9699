"""Socket.IO over its WebSocket transport."""

import asyncio
import json

from bench.frames import TEXT, frame
from bench.load.clients import Socket
from bench.load.tally import Tally

OPEN, PING, CONNECTED, EVENT = b"0", b"2", b"40", b"42"


class SocketIo(Socket):
    """A client that says who it is when it connects; the server puts it into the user's room."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        super().__init__(int(target), "/socket.io/?EIO=4&transport=websocket", tally)
        self._user = user
        self._connected: asyncio.Future[None]

    async def open(self) -> None:
        self._connected = asyncio.get_running_loop().create_future()
        await super().open()
        await self._connected

    def on_message(self, payload: bytes) -> None:
        if payload.startswith(EVENT):
            super().on_message(payload)
        elif payload == PING:
            self.send(frame(TEXT, b"3"))
        elif payload.startswith(CONNECTED):
            self._connected.set_result(None)
        elif payload.startswith(OPEN):
            self.send(frame(TEXT, CONNECTED + json.dumps({"user": self._user}).encode()))
