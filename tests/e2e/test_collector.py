"""What the collector of cycles is kept from doing for us, nobody needs it for."""

import asyncio
import gc
from contextlib import suppress

import pytest
import uvicorn
import websockets

from app.bootstrap.collector import THRESHOLDS, spared
from app.core.session import Phase, Session
from app.gateway.connection import Connection
from app.gateway.uvicorn_host.live import LiveSocket
from app.main import RealTime, create_app
from tests.support.postgres import Database, free_port
from tests.support.roles import as_service
from tests.support.server import PATIENCE


def test_what_there_is_is_left_alone_until_the_end() -> None:
    """Then everything is as it was."""
    before = gc.get_threshold()
    with spared():
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before


async def _live(application: RealTime) -> None:
    """Wait until nobody reads any more."""
    while any(one.session.phase is not Phase.LIVE for one in application.service.hub.everyone()):  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.01)


async def test_connections_are_freed_without_the_collector(
    house: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However they were served, and however they ended; else this waits until its patience is over.

    One that is cut while it reads is not among them: it may be left to the collector.
    """
    monkeypatch.setenv("DATABASE_URL", as_service(house))
    application, port = create_app(), free_port()
    server = uvicorn.Server(uvicorn.Config(application, port=port, log_level="warning"))
    serving = asyncio.create_task(server.serve())
    address = f"ws://127.0.0.1:{port}/realtime/ws?user_id=u"
    async with asyncio.timeout(PATIENCE):
        while not server.started:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)
        gc.disable()
        try:
            for query in ("", "&ack=1", "&position=", "&ack=1&position=rubbish"):
                gentle = await websockets.connect(address + query)
                rough = await websockets.connect(address + query)
                await gentle.recv()
                await rough.recv()
                await _live(application)
                await gentle.send("ping")
                await gentle.close()
                rough.transport.abort()
                with suppress(websockets.ConnectionClosed):
                    await rough.recv()
            while any(kind in {Connection, Session, LiveSocket} for kind in map(type, gc.get_objects())):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.05)
            left = application.service.hub.count
        finally:
            gc.enable()
        server.should_exit = True
        await serving

    assert left == 0
