"""Signals: a drain, a bounded end, exit status 0."""

import asyncio
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals

import pytest
import websockets
from websockets.exceptions import ConnectionClosed
from websockets.frames import Opcode

from .process import uvicorn_process
from .raw import REQUEST, frame

BOUND = 10.0
"""Seconds; the application's times add up to 2 s at most."""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_the_connections_and_the_process_exits_with_0(number: Signals) -> None:
    """The client sees 1001 and not uvicorn's 1012; the lifespan ends properly; no traceback."""
    async with uvicorn_process() as process:
        host, port = await process.address()
        async with websockets.connect(f"ws://{host}:{port}/ws") as client:
            await client.send("hello")
            assert await client.recv() == "hello"
            process.signal(number)
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            status, took = await process.exit()

    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (1001, "going away")
    assert status == 0
    assert took < BOUND
    assert "draining 1" in process.printed
    assert "closed 1001" in process.printed
    assert "lifespan over" in process.printed
    assert "Traceback" not in process.printed


async def test_while_it_drains_no_new_connection_is_accepted() -> None:
    """The listening socket is closed before the first connection is."""
    async with uvicorn_process(DRAIN="never") as process:
        address = await process.address()
        process.signal(signal.SIGTERM)
        await process.until("draining")
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(*address)


async def test_a_drain_that_never_ends_is_cut_off() -> None:
    """After its time, uvicorn goes on with the shutdown."""
    async with uvicorn_process(DRAIN="never") as process:
        await process.address()
        status, took = await process.exit(signal.SIGTERM)

    assert status == 0
    assert 1.0 <= took < BOUND
    assert "the drain was not done after 1.0 s" in process.printed
    assert "lifespan over" in process.printed


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_peer_that_stopped_reading_does_not_hold_the_exit_up(workers: int) -> None:
    """Its buffers are full, so no close frame reaches it: it is dropped."""
    async with uvicorn_process(workers=workers) as process:
        with _stuck(await process.address(), REQUEST % b"/ws") as client:
            assert client.recv(1024).startswith(b"HTTP/1.1 101")
            client.send(frame(Opcode.TEXT, b"flood"))
            await process.until("stuck")
            status, took = await process.exit(signal.SIGTERM)

    assert status == 0
    assert took < BOUND
    assert "closed 1001" in process.printed
    assert "Traceback" not in process.printed


async def test_a_response_nobody_reads_does_not_hold_the_exit_up() -> None:
    """The same for HTTP: an endless stream to a peer that stopped reading."""
    async with uvicorn_process() as process:
        with _stuck(await process.address(), b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n"):
            status, took = await process.exit(signal.SIGTERM)

    assert status == 0
    assert took < BOUND
    assert "Cancel 1 running task(s)" not in process.printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_supervisor_of_several_workers_exits_with_0_too(number: Signals) -> None:
    """Each worker drains on its own."""
    async with uvicorn_process(workers=2) as process:
        await process.address()
        status, took = await process.exit(number)

    assert status == 0
    assert took < BOUND
    assert process.printed.count("draining") == 2
    assert process.printed.count("lifespan over") == 2


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_to_the_whole_group_is_one_request_and_not_two(number: Signals) -> None:
    """Ctrl-C, or a service manager: workers get it twice, the second from the supervisor, and still drain."""
    async with uvicorn_process(workers=2, DRAIN="never") as process:
        await process.address()
        os.killpg(process.pid, number)
        status, _ = await process.exit()

    assert status == 0
    assert process.printed.count("lifespan over") == 2
    assert "second signal" not in process.printed
    assert "Traceback" not in process.printed


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_the_second_signal_ends_the_process_without_waiting(number: Signals) -> None:
    """Whoever asks twice means it: no drain, no lifespan."""
    async with uvicorn_process(DRAIN="never") as process:
        await process.address()
        process.signal(number)
        await process.until("draining")
        status, _ = await process.exit(number)

    assert status == 0
    assert "second signal: leaving without waiting" in process.printed
    assert "lifespan over" not in process.printed
    assert "Traceback" not in process.printed


async def test_a_signal_during_start_up_ends_it_after_the_start() -> None:
    """Nothing is lost or left over when the order to stop comes first."""
    async with uvicorn_process(DRAIN="early") as process:
        await process.until("starting")
        status, _ = await process.exit(signal.SIGTERM)

    assert status == 0
    assert "lifespan over" in process.printed
    assert "Traceback" not in process.printed


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_start_up_error_is_one_line_and_ends_everything(workers: int) -> None:
    """The application's own sentence, no traceback, and the supervisor gives up as well."""
    async with uvicorn_process(workers=workers, STARTUP_ERROR="Run the migrations first.") as process:
        status, _ = await process.exit()

    assert "ERROR:    Run the migrations first." in process.printed
    assert "Traceback" not in process.printed
    # uvicorn's supervisor stops when a worker cannot start, but says so only in its log.
    assert status == (3 if workers == 1 else 0)


@contextmanager
def _stuck(address: tuple[str, int], request: bytes) -> Iterator[socket.socket]:
    """A client that sends `request` and has room for next to no answer."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(address)
        client.sendall(request)
        yield client
