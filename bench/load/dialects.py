"""How clients of each system speak. A dialect opens one client's connection and tallies what comes."""

import asyncio
import json
from collections.abc import Callable
from typing import Protocol

import asyncpg

from bench.frames import WebSocket
from bench.load.tally import Tally
from bench.stamps import now


class Client(Protocol):
    """One client; `got` counts the stamped messages of its present connection."""

    got: int

    async def open(self) -> None:
        """Connect, or connect again; ConnectionError when refused. Returns when messages would come."""

    def drop(self) -> None:
        """Vanish without a close."""


class Plain:
    """A WebSocket of ours, or of the naive server."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        self._port = int(target)
        self._path = f"/realtime/ws?user_id={user}"
        self._tally = tally
        self._socket: WebSocket | None = None
        self.got = 0

    async def open(self) -> None:
        self.got = 0
        loop = asyncio.get_running_loop()
        _, self._socket = await loop.create_connection(
            lambda: WebSocket(self._asked(), self.on_message), "127.0.0.1", self._port
        )
        await self._socket.opened

    def on_message(self, payload: bytes) -> None:
        if self._tally.note(payload):
            self.got += 1

    def drop(self) -> None:
        if self._socket is not None:
            self._socket.transport.abort()

    def _asked(self) -> str:
        return self._path


class Resuming(Plain):
    """A client of ours that comes back with its last position."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        super().__init__(target, user, tally)
        self._position = ""

    def on_message(self, payload: bytes) -> None:
        self._position = json.loads(payload).get("position", self._position)
        super().on_message(payload)

    def _asked(self) -> str:
        return f"{self._path}&position={self._position}"


class Listening:
    """A bare LISTEN: its bells carry no stamp, so who was rung for is kept with the time."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:  # noqa: ARG002 - as every dialect
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


DIALECTS: dict[str, Callable[[str, str, Tally], Client]] = {
    "plain": Plain,
    "resuming": Resuming,
    "listening": Listening,
}
