"""The reads of a connection that catches up, performed for its session.

A step goes on until there is a page to hand over, however long the database is away. What a read can find
beside rows ends the connection: that its token was revoked, its user or device deleted, its device connected
again, or rows gone. Commands tell that too, but not to who was just being let in when they came.
"""

import asyncio
import logging
import random

from app.core.actions import Action, NextPage, StartRead
from app.core.close_codes import DELETED, REMOVED, REPLACED, CloseCode
from app.core.identity import NotAllowed
from app.core.position import Lost
from app.core.reads import Begun, Interrupted, Page, Unavailable, UserErased
from app.core.session import Session
from app.gateway.greeting import Greeting
from app.gateway.login import Login
from app.gateway.ports import Device, Reader, Receipts

log = logging.getLogger(__name__)

REVOKED = "this token was revoked; log in again"
RETRY_READ = 0.5
"""Seconds after which a read is tried again while the database is away, times 0.5 to 1.5."""


class _Replaced(Exception):  # noqa: N818 - an event of the device's life, not a mistake
    """The device has connected again."""


class Reading:
    """Reads for the session of one connection, and greets its client with what the first read finds."""

    __slots__ = ("_device", "_greeting", "_login", "_number", "_reader", "_receipts", "_session", "_user_id")

    def __init__(
        self,
        number: int,
        user_id: str,
        session: Session,
        reader: Reader,
        receipts: Receipts,
        greeting: Greeting,
        login: Login | None,
        device: Device | None,
    ) -> None:
        self._number = number
        self._user_id = user_id
        self._session = session
        self._reader = reader
        self._receipts = receipts
        self._greeting = greeting
        self._login = login
        self._device = device

    async def perform(self, step: StartRead | NextPage) -> list[Action]:
        """Take a step of a read; returns what the session makes of it."""
        session, now = self._session, asyncio.get_running_loop().time
        try:
            page, lost = await self._page(step)
            if self._greeting.must_be_said_anew(lost):
                return session.close(CloseCode.RESTART, "rows were removed before you got them; reconnect")
            return session.page(page.messages, more=page.more, now=now())
        except Interrupted:
            return session.interrupt(now())
        except NotAllowed as denied:
            return session.close(CloseCode.NOT_ALLOWED, denied.message)
        except _Replaced:
            return session.close(CloseCode.REPLACED, REPLACED)
        except UserErased:
            return session.close(CloseCode.NOT_ALLOWED, DELETED)
        except Exception:
            log.exception("connection %s cannot catch up", self._number)
            return session.close(CloseCode.INTERNAL_ERROR, "internal error")

    async def _page(self, step: StartRead | NextPage) -> tuple[Page, Lost | None]:
        """Read a page, and of what its client cannot have been told yet: which rows are gone."""
        while True:
            try:
                if isinstance(step, StartRead):
                    return await self._start(step)
                page = await self._reader.next_page()
            except Unavailable:
                await asyncio.sleep(RETRY_READ * random.uniform(0.5, 1.5))  # noqa: S311
            else:
                return page, page.lost

    async def _start(self, step: StartRead) -> tuple[Page, Lost | None]:
        begun = await self._reader.start(step.position, with_undelivered=step.with_undelivered)
        self._see_whether_it_may(begun)
        self._session.begin_read(begun.first, partial=begun.partial)
        if self._greeting.is_said:
            return begun.page, begun.lost
        await self._mark_proven(begun)
        if (position := self._session.position) is not None:
            self._greeting.say(begun, position)
        return begun.page, None

    def _see_whether_it_may(self, begun: Begun) -> None:
        """End what was ended since the connection was let in, and before the hub knew it."""
        if self._login is not None and self._login.is_revoked(begun.revoked_before):
            raise NotAllowed(REVOKED)
        if self._device is None:
            return
        if begun.generation is None:
            raise NotAllowed(REMOVED)
        if begun.generation > self._device.generation:
            raise _Replaced

    async def _mark_proven(self, begun: Begun) -> None:
        """What the client's own position covers has reached the user, confirmed before or not.

        Only within one incarnation: after a crash its xids can be those of rows that it never got.
        """
        own = self._greeting.wishes.position
        if own is None or begun.lost is not None:
            return
        if own.incarnation == begun.first.incarnation:
            events, sync_rows = await self._reader.proven(own)
            self._receipts.add(self._user_id, events, sync_rows)
