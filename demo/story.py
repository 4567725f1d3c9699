"""The guided run: what is shown is checked, and a run that shows something else fails."""

import asyncio
import time
from dataclasses import dataclass

from demo.client import PATIENCE, Arrival, Client
from demo.host import Host, Write, chat_message, journal_entry, mood
from demo.options import DemoError
from demo.terminal import Terminal

ADA, BEN = "ada", "ben"
POLL = 0.05
READING_TIME = 1.6
"""Seconds a reader gets between two steps."""


@dataclass(frozen=True, slots=True)
class Story:
    """The run on a server that is up; `quick` leaves out the time to read."""

    terminal: Terminal
    host: Host
    port: int
    quick: bool = False

    async def tell(self) -> None:
        """Tell it from the beginning; raises DemoError when something else happens."""
        await self.host.forget_events((ADA, BEN))
        await self.host.add_users((ADA, BEN))
        await self._live()
        missed = await self._while_away()
        await self._return(missed)

    async def _live(self) -> None:
        self.terminal.heading("1. Two apps connect, each over a WebSocket")
        async with Client.connect(self.port, ADA) as ada, Client.connect(self.port, BEN) as ben:
            for client in (ada, ben):
                self.terminal.result(f"{client.user}: connected")
            await self._pause()
            self.terminal.heading("2. The main API writes rows; triggers and service do the rest")
            self.terminal.aside(
                "ms: from the start of the INSERT, its commit included, to the message in the app"
            )
            await self._show(mood(ADA, 7), "mood_update", ada)
            await self._show(chat_message(BEN, "Good morning"), "chat_message", ada, ben)
            await self._show(journal_entry(ADA), "journal_update", ada)
            await self._all_confirmed(ADA)
            others = [*ada.everything_else(), *ben.everything_else()]
            if others:
                raise DemoError(f"messages came that nobody should have got: {others}")
            self.terminal.step(
                "Both have answered a ping that followed the messages: now these are delivered."
            )
            self.terminal.step("ben got the room's message, and none of ada's moods and entries.")
            await self._pause()

    async def _while_away(self) -> list[int]:
        self.terminal.heading("3. ada's app goes away; three rows are written meanwhile")
        for write in (mood(ADA, 3), chat_message(BEN, "Are you there?"), journal_entry(ADA)):
            await self.host.write(write)
            self.terminal.step(str(write))
        missed = await self.host.undelivered(ADA)
        self.terminal.result(f"kept for ada in the outbox: events {_listed(missed)}")
        await self._pause()
        return missed

    async def _return(self, missed: list[int]) -> None:
        self.terminal.heading("4. ada's app returns")
        started = time.perf_counter()
        async with Client.connect(self.port, ADA) as ada:
            got = [await ada.next_of(kind) for kind in ("mood_update", "chat_message", "journal_update")]
            for arrival in got:
                self.terminal.result(_told(ADA, arrival, started))
            await self._all_confirmed(ADA)
            got += ada.everything_else()
        if [arrival.id for arrival in got] != missed:
            raise DemoError(f"ada got {_listed([a.id for a in got])} instead of {_listed(missed)}")
        self.terminal.step(f"Exactly the {len(missed)} that were missed, in order. (ms: from connecting)")
        await self._pause()

    async def _show(self, write: Write, kind: str, *clients: Client) -> None:
        self.terminal.step(str(write))
        started = time.perf_counter()
        await self.host.write(write)
        for client in clients:
            self.terminal.result(_told(client.user, await client.next_of(kind), started))
        await self._pause()

    async def _all_confirmed(self, user: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while undelivered := await self.host.undelivered(user):
            if time.monotonic() > deadline:
                raise DemoError(f"{user} did not confirm events {_listed(undelivered)}")
            await asyncio.sleep(POLL)

    async def _pause(self) -> None:
        if not self.quick:
            await asyncio.sleep(READING_TIME)


def _told(user: str, arrival: Arrival, started: float) -> str:
    took = (arrival.at - started) * 1000
    return f"{user}: {arrival.kind:<14} {took:6.1f} ms   {arrival.summary}"


def _listed(ids: list[int]) -> str:
    return ", ".join(str(one) for one in ids) or "none"
