"""MQTT 3.1.1: a client over WebSocket with a persistent session and QoS 1; a host that publishes over TCP."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.frames import BINARY, frame
from bench.load.clients import Socket
from bench.load.messages import mood
from bench.load.publishers import Publish
from bench.load.tally import Tally

CONNACK, PUBLISH, PUBACK, SUBACK = 0x20, 0x30, 0x40, 0x90
QOS_1 = 0x02


def packet(head: int, body: bytes) -> bytes:
    """A control packet."""
    size, length = len(body), b""
    while True:
        size, digit = divmod(size, 128)
        length += bytes([digit | 0x80 if size else digit])
        if not size:
            return bytes([head]) + length + body


def packets(data: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The whole packets at the beginning of `data`, each its first byte and its body, and what is left."""
    found = []
    at = 0
    while at < len(data):
        size = shift = 0
        start = at + 1
        while start < len(data):
            digit = data[start]
            size |= (digit & 127) << shift
            start, shift = start + 1, shift + 7
            if digit < 128:
                break
        else:
            break
        if len(data) < start + size:
            break
        found.append((data[at], data[start : start + size]))
        at = start + size
    return found, data[at:]


def text(value: str) -> bytes:
    """A string with its length."""
    return len(value).to_bytes(2, "big") + value.encode()


def connect(client: str, *, clean: bool) -> bytes:
    """Connect without a keep-alive; unless `clean`, the session outlives the connection."""
    return packet(0x10, text("MQTT") + bytes([4, 2 if clean else 0, 0, 0]) + text(client))


def topic(user: str) -> str:
    """What a user subscribes to."""
    return f"users/{user}"


class Mqtt(Socket):
    """A subscriber that acknowledges each message."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        super().__init__(int(target), "/mqtt", tally, protocol="mqtt")
        self._user = user
        self._data = b""
        self._subscribed: asyncio.Future[None]

    async def open(self) -> None:
        self._data = b""
        self._subscribed = asyncio.get_running_loop().create_future()
        await super().open()
        self.send(frame(BINARY, connect(f"client-{self._user}", clean=False)))
        self.send(frame(BINARY, packet(0x82, b"\0\1" + text(topic(self._user)) + b"\1")))
        await self._subscribed

    def on_message(self, payload: bytes) -> None:
        found, self._data = packets(self._data + payload)
        for head, body in found:
            if head & 0xF0 == SUBACK:
                self._subscribed.set_result(None)
            elif head & 0xF0 == PUBLISH:
                size = 2 + int.from_bytes(body[:2], "big")
                if head & QOS_1:
                    self.send(frame(BINARY, packet(PUBACK, body[size : size + 2])))
                super().on_message(body)


@asynccontextmanager
async def publishing(port: int) -> AsyncIterator[Publish]:
    """A publisher that waits for each PUBACK."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    data = b""

    async def take() -> None:
        nonlocal data
        found: list[tuple[int, bytes]] = []
        while not found:
            data += await reader.read(4096)
            found, data = packets(data)

    async def publish(user: str, score: int) -> None:
        writer.write(packet(PUBLISH | QOS_1, text(topic(user)) + b"\0\1" + mood(user, score)))
        await take()

    writer.write(connect(f"host-{secrets.token_hex(8)}", clean=True))
    await take()
    yield publish
    writer.close()
