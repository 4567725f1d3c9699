"""No query string in any log, at any level."""

import logging

import pytest
import websockets
from websockets.exceptions import InvalidStatus

from app.gateway.uvicorn_host.quiet_logs import WithoutQueries

from .process import uvicorn_process
from .raw import raw_client

CANARY = "CANARY7f3a"


@pytest.mark.parametrize("level", ["info", "debug", "trace"])
@pytest.mark.parametrize("workers", [1, 2])
async def test_a_secret_in_a_query_string_or_header_is_never_printed(level: str, workers: int) -> None:
    """Accepted, refused and malformed WebSockets, HTTP found and pipelined, at every log level."""
    secret = {"X-Device-Token": CANARY}
    async with uvicorn_process("--log-level", level, workers=workers) as process:
        host, port = address = await process.address()
        async with websockets.connect(
            f"ws://{host}:{port}/ws?token={CANARY}", additional_headers=secret
        ) as client:
            await client.send(CANARY)
            assert await client.recv() == CANARY
        with pytest.raises(InvalidStatus):
            await websockets.connect(f"ws://{host}:{port}/refused?token={CANARY}", additional_headers=secret)
        for request in (
            f"GET /x?token={CANARY} HTTP/1.1\r\nHost: x\r\nX-Device-Token: {CANARY}\r\nConnection: close\r\n\r\n",
            f"GET /x?token={CANARY} HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nHost: x\r\n\r\n",
            f"GET http://x/x?token={CANARY} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
            f"GET /x?token={CANARY}\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            async with raw_client(address) as raw:
                raw.send(request.encode())
                await raw.read_to_end()
        await process.end()

    assert CANARY not in process.printed
    assert "/ws" in process.printed
    assert "Traceback" not in process.printed


@pytest.mark.parametrize(
    ("message", "args", "expected"),
    [
        ("%s - %s %d", ("1.2.3.4:5", "/x?token=1", 200), "1.2.3.4:5 - /x 200"),
        ("nothing here", (), "nothing here"),
        ("scope=%s", ({"type": "http", "path": "/", "query_string": b"a=1"},), "scope={"),
    ],
)
def test_only_the_query_string_is_cut(message: str, args: tuple[object, ...], expected: str) -> None:
    """The rest of a line is what uvicorn wrote."""
    record = logging.LogRecord("uvicorn.access", logging.INFO, "", 0, message, args, None)
    assert WithoutQueries().filter(record)
    assert record.getMessage().startswith(expected)
    assert "a=1" not in record.getMessage()
