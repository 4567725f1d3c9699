"""What a client of any system can do, and those of ours, the naive server's and the floor's."""

import asyncio
import json
from typing import Protocol

import asyncpg

from bench.frames import WebSocket
from bench.load.tally import Tally
from bench.stamps import now


class Client(Protocol):
    """One client; `got` counts the stamped messages since it connected or they were last taken."""

    got: int

    async def open(self) -> None:
        """Connect, or connect again; OSError when refused. Returns when messages would come."""

    def drop(self) -> None:
        """Vanish without a close."""


class Socket:
    """A client over a WebSocket that counts the stamped messages it gets."""

    def __init__(self, port: int, path: str, tally: Tally, protocol: str | None = None) -> None:
        self._port = port
        self.path = path
        self._tally = tally
        self._protocol = protocol
        self._socket: WebSocket | None = None
        self.got = 0

    async def open(self) -> None:
        self.got = 0
        loop = asyncio.get_running_loop()
        _, self._socket = await loop.create_connection(
            lambda: WebSocket(self.path, self.on_message, self._protocol), "127.0.0.1", self._port
        )
        await self._socket.opened

    def on_message(self, payload: bytes) -> None:
        """Note a message."""
        if self._tally.note(payload):
            self.got += 1

    def send(self, frame: bytes) -> None:
        """Send a frame, `bench.frames.frame`."""
        assert self._socket is not None
        self._socket.transport.write(frame)

    def drop(self) -> None:
        if self._socket is not None:
            self._socket.transport.abort()


class Plain(Socket):
    """A client of ours, or of the naive server."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        super().__init__(int(target), f"/realtime/ws?user_id={user}", tally)


class Resuming(Plain):
    """A client of ours that comes back with its last position."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        super().__init__(target, user, tally)
        self._asked = self.path
        self._position = ""

    async def open(self) -> None:
        self.path = f"{self._asked}&position={self._position}"
        await super().open()

    def on_message(self, payload: bytes) -> None:
        self._position = json.loads(payload).get("position", self._position)
        super().on_message(payload)


class Listening:
    """A bare LISTEN: its bells carry no stamp, so who was rung for is kept with the time."""

    def __init__(self, target: str, _user: str, _tally: Tally) -> None:
        self._dsn = target
        self.rung: list[tuple[str, int]] = []
        self.got = 0
        self._connection: asyncpg.Connection | None = None

    async def open(self) -> None:
        self._connection = await asyncpg.connect(self._dsn)
        await self._connection.add_listener("mood_events", self._ring)

    def drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()

    def _ring(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self.rung.append((json.loads(str(payload))["user_id"], now()))
        self.got += 1
