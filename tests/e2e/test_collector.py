"""What the collector of cycles is kept from doing for us, nobody needs it for."""

import asyncio
import gc
from contextlib import suppress

import pytest
import websockets

from app.core.session import Phase, Session
from app.gateway.connection import Connection
from app.gateway.uvicorn_host.live import LiveSocket
from app.main import RealTime, create_app
from tests.support.in_process import address_of, in_process
from tests.support.postgres import Database
from tests.support.roles import as_service
from tests.support.server import PATIENCE


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
    application = create_app()
    async with in_process(application, log_level="warning") as server, asyncio.timeout(PATIENCE):
        address = "ws://{}:{}/realtime/ws?user_id=u".format(*address_of(server))
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
        finally:
            gc.enable()
        assert application.service.hub.count == 0
