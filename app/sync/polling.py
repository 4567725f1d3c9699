"""Read, and where there is nothing wait until the tail finds something."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, replace
from typing import Any

from app.core.wishes import Wishes
from app.http import Problem
from app.sync.ports import ArchiveOf, Devices
from app.sync.reading import Answer, read
from app.sync.waiters import Waiters
from app.sync.who import look_up

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

LONGEST_WAIT = 25.0
"""Seconds; shorter than the patience of common proxies."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a client asks for."""

    user_id: str
    device_token: str | None
    wishes: Wishes
    limit: int


class Polling:
    """Answers those who ask for what is new; every method raises what reading raises."""

    def __init__(self, archive_of: ArchiveOf, devices: Devices, waiters: Waiters) -> None:
        self._archive_of = archive_of
        self._devices = devices
        self._waiters = waiters

    async def answer(self, asked: Asked) -> Answer:
        """Read once. Raises UnknownDevice, Interrupted, Unavailable, UserErased."""
        who = await look_up(self._devices, asked.user_id, asked.device_token)
        return await read(self._archive_of, who, asked.wishes, asked.limit)

    async def answer_within(
        self,
        seconds: float,
        asked: Asked,
        receive: Receive,
        still_allowed: Callable[[], Awaitable[None]],
    ) -> Answer:
        """Read, and again when something comes, until there is something or the seconds are over.

        Ends early when `receive` tells that the client is gone. Raises TooManyWaiting too, and what
        `still_allowed` raises, which is asked before each later read: its user may have been disconnected.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        with self._waiters.place(asked.user_id) as told:
            first = answer = await self.answer(asked)
            begins = asked.wishes.position is None
            gone = loop.create_task(_until_gone(receive))
            try:
                # What comes again ends no wait of a client that goes on with a position: if it acknowledged
                # nothing but positions, it would ask without a pause.
                while (
                    not answer.messages
                    and not (answer.again and begins)
                    and await self._told(told, gone, until)
                ):
                    told.clear()
                    await still_allowed()
                    asked = replace(asked, wishes=Wishes(positions=True, given=answer.next))
                    answer = await self.answer(asked)
            finally:
                gone.cancel()
        return replace(answer, lost=first.lost or answer.lost)

    async def _told(self, told: asyncio.Event, gone: asyncio.Task[None], until: float) -> bool:
        """Wait; whether there may be something to read."""
        if self._waiters.released:
            return False
        telling = asyncio.ensure_future(told.wait())
        try:
            left = max(until - asyncio.get_running_loop().time(), 0)
            await asyncio.wait({telling, gone}, timeout=left, return_when=asyncio.FIRST_COMPLETED)
            return telling.done() and not self._waiters.released
        finally:
            telling.cancel()


async def _until_gone(receive: Receive) -> None:
    with contextlib.suppress(Problem):  # a body that nobody asked for, and without end: as good as gone
        while (await receive())["type"] != "http.disconnect":
            pass
