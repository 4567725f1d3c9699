"""NATS: a client over WebSocket with a durable consumer of its own; a host that publishes to the stream."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from bench.frames import BINARY, frame
from bench.load.clients import Socket
from bench.load.messages import mood
from bench.load.publishers import Publish
from bench.load.tally import Tally

STREAM = "events"
HELLO = b'CONNECT {"verbose":false,"pedantic":false}\r\n'
PONG = b"PONG\r\n"

Message = tuple[list[bytes], bytes]
"""The words of the first line, and the payload of a MSG."""


def split(data: bytes) -> tuple[list[Message], bytes]:
    """The whole protocol messages at the beginning of `data`, and what is left."""
    found: list[Message] = []
    at = 0
    while (end := data.find(b"\r\n", at)) >= 0:
        words = data[at:end].split()
        start = end + 2
        if words[:1] == [b"MSG"]:
            size = int(words[-1])
            if len(data) < start + size + 2:
                break
            found.append((words, data[start : start + size]))
            at = start + size + 2
        else:
            found.append((words, b""))
            at = start
    return found, data[at:]


def request(subject: str, reply: str, payload: bytes) -> bytes:
    """Publish with an address for the answer."""
    return f"PUB {subject} {reply} {len(payload)}\r\n".encode() + payload + b"\r\n"


class Nats(Socket):
    """A durable push consumer that acknowledges each message."""

    def __init__(self, target: str, user: str, tally: Tally) -> None:
        super().__init__(int(target), "/", tally)
        self._user = user
        self._data = b""
        self._ready: asyncio.Future[bytes]

    async def open(self) -> None:
        self._data = b""
        self._ready = asyncio.get_running_loop().create_future()
        await super().open()
        user = self._user
        config = {
            "durable_name": user,
            "deliver_subject": f"to.{user}",
            "filter_subject": f"users.{user}",
            "ack_policy": "explicit",
            "deliver_policy": "all",
        }
        wanted = json.dumps({"stream_name": STREAM, "config": config}).encode()
        subscribe = f"SUB to.{user} 1\r\nSUB answer.{user} 2\r\n".encode()
        create = request(f"$JS.API.CONSUMER.DURABLE.CREATE.{STREAM}.{user}", f"answer.{user}", wanted)
        self.send(frame(BINARY, HELLO + subscribe + create))
        answer = json.loads(await self._ready)
        if "error" in answer:
            raise ConnectionError(answer["error"])

    def on_message(self, payload: bytes) -> None:
        found, self._data = split(self._data + payload)
        for words, body in found:
            if words[0] == b"PING":
                self.send(frame(BINARY, PONG))
            elif words[0] == b"MSG" and words[2] == b"2":
                self._ready.set_result(body)
            elif words[0] == b"MSG":
                self.send(frame(BINARY, b"PUB " + words[3] + b" 4\r\n+ACK\r\n"))
                super().on_message(body)


@asynccontextmanager
async def publishing(port: int) -> AsyncIterator[Publish]:
    """A publisher that waits until the stream has each message."""
    async with asking(port) as ask:

        async def publish(user: str, score: int) -> None:
            await ask(f"users.{user}", mood(user, score))

        yield publish


class _Asker:
    """One request at a time over TCP."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._data = b""
        self._inbox = f"host.{secrets.token_hex(8)}"
        writer.write(HELLO + f"SUB {self._inbox} 1\r\n".encode())

    async def __call__(self, subject: str, payload: bytes) -> bytes:
        self._writer.write(request(subject, self._inbox, payload))
        while True:
            found, self._data = split(self._data)
            for words, body in found:
                if words[0] == b"PING":
                    self._writer.write(PONG)
                elif words[0] == b"MSG":
                    return body
            self._data += await self._reader.read(4096)


@asynccontextmanager
async def asking(port: int) -> AsyncIterator[_Asker]:
    """A connection for requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    yield _Asker(reader, writer)
    writer.close()


async def make_stream(port: int) -> None:
    """A stream of all users' subjects, on disk. Raises RuntimeError when the server refuses."""
    wanted = {"name": STREAM, "subjects": ["users.>"], "storage": "file", "max_consumers": 100_000}
    async with asking(port) as ask:
        answer = json.loads(await ask(f"$JS.API.STREAM.CREATE.{STREAM}", json.dumps(wanted).encode()))
    if "error" in answer:
        raise RuntimeError(answer["error"])
