"""A real uvicorn in the test's own loop."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from tests.support.server import PATIENCE


@asynccontextmanager
async def in_process(
    application: Any, before_end: Callable[[uvicorn.Server], None] = lambda _: None, **config: Any
) -> AsyncIterator[uvicorn.Server]:
    """Serve an application on a free port; `config` is uvicorn's. Ends it, also when the test has failed."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, **config))
    serving = asyncio.create_task(server.serve())
    try:
        async with asyncio.timeout(PATIENCE):
            while not server.started and not serving.done():  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.005)
        assert server.started
        yield server
    finally:
        server.should_exit = True
        before_end(server)
        await asyncio.wait_for(serving, PATIENCE)


def address_of(server: uvicorn.Server) -> tuple[str, int]:
    """Where it listens."""
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return host, port
