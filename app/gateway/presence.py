"""Do something for a client only for as long as it is there."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from app.gateway.asgi_socket import Receive

T = TypeVar("T")


class Left(Exception):  # noqa: N818 - what a client does, not a mistake
    """The client has gone before it was answered."""


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """Return what `work` returns; cancels it and raises Left when the client goes before.

    `receive` is that of ASGI; whatever else comes meanwhile is a request's body, and passed over.
    """
    working, going = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait({working, going}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise Left
    finally:
        working.cancel()
        going.cancel()
        await asyncio.gather(working, going, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while not (await receive())["type"].endswith(".disconnect"):
        pass
