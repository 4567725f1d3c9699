"""The path from a committed row to one connection, in this process: everything but HTTP and the scheduler.

A `Rig` runs the real pool, tail, listener, receipts and hub on a database; a `Peer` is the far end of a
connection and keeps what it got. Nothing here waits for a length of time: it waits for what should become
true, and fails after `PATIENCE`.
"""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import asyncpg

from app.core.commands import Command
from app.core.flight import Limits, Pace
from app.core.identity import Identity
from app.core.messages import Message
from app.core.position import Pass, Position
from app.core.rate import Load
from app.core.recent import Recent
from app.core.session import Phase
from app.core.snapshot import Snapshot
from app.core.wishes import Wishes
from app.devices.registry import Registry
from app.gateway.connection import Connection, Surroundings
from app.gateway.hub import Hub
from app.gateway.ports import Device
from app.gateway.wheel import Wheel
from app.lifecycle import Part
from app.outbox.catch_up import Archive
from app.outbox.listener import Listener
from app.outbox.receipts import Receipts
from app.outbox.tail import Tail, Timing
from app.outbox.walk import PageSize
from app.store import inspection, reads
from app.store.database import UNREACHABLE, address
from app.store.database import Database as Pool

PATIENCE = 30.0
"""Seconds within which whatever is waited for must become true."""
NO_SWEEP = 3600.0
"""An interval of sweeps with which a row can only arrive because a bell was heard."""


async def until(met: Callable[[], object], *, within: float = PATIENCE) -> None:
    """Wait until something is true of this process; raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not met():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)


async def until_true(connection: asyncpg.Connection, question: str, *, within: float = PATIENCE) -> None:
    """Wait until the database says so; raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not await connection.fetchval(question):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


@dataclass
class Received:
    """A message with an id, as a peer got it; `at` is the monotonic clock."""

    body: dict[str, Any]
    at: float

    @property
    def id(self) -> int:
        """The row's id."""
        return int(self.body["id"])

    @property
    def data(self) -> dict[str, Any]:
        """The message's `data`."""
        data: dict[str, Any] = self.body["data"]
        return data


class Peer:
    """The far end of one connection and the socket to it; a `mute` one answers no ping, and acknowledges nothing."""

    confirms = True
    writable = True
    beside = None

    def __init__(self, *, mute: bool = False) -> None:
        self.mute = mute
        self.control: list[dict[str, Any]] = []
        self.received: list[Received] = []
        self.close_code: int | None = None
        self.connection: Connection | None = None

    @property
    def ids(self) -> list[int]:
        """Ids of what it got, in the order in which it came."""
        return [received.id for received in self.received]

    @property
    def position(self) -> Position | None:
        """What its connection has been sent."""
        return self._connection.session.position

    @property
    def is_settled(self) -> bool:
        """Whether it is fed live and nothing waits, or is unconfirmed."""
        session = self._connection.session
        quiet = session.waiting == 0 and (self.mute or session.in_flight == 0)
        return self.close_code is not None or (session.phase is Phase.LIVE and quiet)

    def unmute(self) -> None:
        """Answer pings from now on, the outstanding one too."""
        self.mute = False
        self.pong()

    def leave(self) -> None:
        """Drop the connection."""
        self._connection.on_closed(1005)

    # ---- what a connection does to its socket

    def send(self, message: bytes) -> None:
        body = json.loads(message)
        if "id" in body:
            self.received.append(Received(body, time.monotonic()))
            if "seq" in body and not self.mute:
                asyncio.get_running_loop().call_soon(self.acknowledge, body["seq"])
        else:
            self.control.append(body)

    def ping(self) -> None:
        if not self.mute:
            asyncio.get_running_loop().call_soon(self.pong)

    def pong(self) -> None:
        self._connection.on_pong()

    def acknowledge(self, number: int) -> None:
        self._connection.on_text(json.dumps({"type": "ack", "seq": number}))

    def refuse(self, number: int) -> None:
        self._connection.on_text(json.dumps({"type": "nack", "seq": number}))

    def flush(self) -> None:
        """It has everything already."""

    def close(self, code: int, reason: str = "") -> None:
        self.close_code = code
        self._connection.on_closed(code)

    def abort(self) -> None:
        self.close_code = 1006
        self._connection.on_closed(None)

    @property
    def _connection(self) -> Connection:
        assert self.connection is not None
        return self.connection


class _Everyone:
    def __contains__(self, user_id: object) -> bool:
        return True


class Outlet:
    """The hub as the tail sees it, and a record of what the tail hands over."""

    def __init__(self, hub: Hub, pace: Pace, *, everyone: bool) -> None:
        self._hub = hub
        self._pace = pace
        self._everyone = everyone
        self.rows: list[tuple[str, Message]] = []
        self.bursts: list[bool] = []
        """Of each handing over, whether it was part of a burst."""
        self.commands: list[Command] = []
        self.done: Pass | None = None

    @property
    def users(self) -> Container[str]:
        """Users of the hub, or all there are."""
        return _Everyone() if self._everyone else self._hub.users

    @property
    def ids(self) -> list[int]:
        """Ids of the rows handed over, in order."""
        return [message.id for _, message in self.rows]

    def route(self, user_id: str, messages: list[Message], found_by: Pass) -> None:
        self.rows += [(user_id, message) for message in messages]
        self.bursts.append(self._pace.rows_first)
        self._hub.route(user_id, messages, found_by)

    def obey(self, command: Command) -> None:
        self.commands.append(command)
        self._hub.obey(command)

    def overtaken(self) -> None:
        self._hub.overtaken()

    def completed(self, done: Pass) -> None:
        self.done = done
        self._hub.completed(done)


@dataclass(frozen=True)
class Knobs:
    """How a rig runs; times are seconds. `everyone`: the outlet records the rows of all users."""

    timing: Timing = field(default_factory=Timing)
    page: PageSize = field(default_factory=PageSize)
    limits: Limits = field(default_factory=Limits)
    overlap: float = 300.0
    confirm_after: float = 0.02
    remembered: int = 100_000
    echo_interval: float = 5.0
    echo_timeout: float = 2.0
    busy_above: float = 0.7
    busy_below: float = 0.35
    receipts_batch: int = 500
    receipts_interval: float = 0.01
    everyone: bool = False
    listens: bool = True
    pool_size: int = 5


class Rig:
    """One process of the service, less HTTP and the scheduler; `tail_pool` is where its tail reads instead."""

    def __init__(
        self, url: str, knobs: Knobs, *, listen_url: str | None = None, tail_pool: Pool | None = None
    ) -> None:
        self.knobs = knobs
        self.pool = Pool(address(url), size=knobs.pool_size)
        self.hub = Hub()
        self.pace = Pace(knobs.confirm_after)
        self.outlet = Outlet(self.hub, self.pace, everyone=knobs.everyone)
        self.wheel = Wheel(asyncio.get_running_loop())
        self.load = Load(busy_above=knobs.busy_above, busy_below=knobs.busy_below)
        overlap = timedelta(seconds=knobs.overlap)
        self.receipts = Receipts(
            self.pool,
            interval=knobs.receipts_interval,
            batch=knobs.receipts_batch,
            retry=0.05,
            overlap=knobs.overlap,
        )
        self.tail = Tail(
            tail_pool or self.pool,
            self.outlet,
            timing=knobs.timing,
            load=self.load,
            page=knobs.page,
            overlap=overlap,
            recent=Recent(knobs.remembered),
            on_busy=lambda _: None,
            on_restart=self.receipts.database_restarted,
            burst=self.pace.burst,
        )
        self.wakes = 0
        self.listener = Listener(
            address(listen_url or url),
            self._wake,
            echo_interval=knobs.echo_interval,
            echo_timeout=knobs.echo_timeout,
            retry_at_most=0.5,
        )
        self.registry = Registry(self.pool, self.receipts.take_over)
        turns = asyncio.Semaphore(8)
        self.archive = Archive(self.pool, turns, knobs.page, overlap, self.receipts, begun=self.tail.begun)
        self.peers: list[Peer] = []
        self._parts = [Part("receipts", self.receipts.run), Part("tail", self.tail.run)]
        if knobs.listens:
            self._parts.append(Part("listener", self.listener.run))

    async def start(self) -> None:
        """Prepare the database as the service does, start everything, and wait until it works."""
        async with self.pool.driver() as connection:
            await inspection.inspect(connection)
            await reads.create_incarnation(connection)
            await inspection.adopt_foreign_rows(connection)
        for part in self._parts:
            part.start()
        if self.knobs.listens:
            await until(lambda: self.listener.echoed_at is not None)
        await until(lambda: self.tail.read_at is not None)

    async def stop(self) -> None:
        """Drop the connections, stop everything, and write what can be written."""
        for peer in self.peers:
            if peer.connection is not None and peer.close_code is None:
                peer.leave()
        for part in reversed(self._parts):
            await part.stop()
        await self.receipts.flush()
        await self.pool.close()

    def die(self) -> None:
        """End without a word, as a killed process would: nothing more is read, written or confirmed."""
        for part in self._parts:
            if part._task is not None:
                part._task.cancel()

    def connect(
        self,
        user_id: str,
        *,
        device: Device | None = None,
        mute: bool = False,
        position: str | None = None,
        acks: bool = False,
        identity: Identity | None = None,
    ) -> Peer:
        """Connect as a user, with a device, the parameters `position` and `ack`, and a token where given.

        Whoever says that it acknowledges is not made to: let it be `mute`.
        """
        peer = Peer(mute=mute)
        surroundings = Surroundings(
            archive=self.archive,
            receipts=self.receipts,
            limits=self.knobs.limits,
            pace=self.pace,
            wheel=self.wheel,
            routed=lambda: self.hub.routed,
            on_gone=self.hub.remove,
        )
        wishes = Wishes.parse(position, acks=acks)
        peer.connection = Connection(
            len(self.peers) + 1, user_id, device, peer, surroundings, wishes, identity
        )
        self.peers.append(peer)
        self.hub.add(peer.connection)
        peer.connection.open()
        return peer

    async def connect_device(self, user_id: str, device_token: str, *, mute: bool = False) -> Peer:
        """Connect with a device that is registered."""
        device = await self.registry.connect(user_id, device_token)
        assert device is not None
        return self.connect(user_id, device=device, mute=mute)

    async def caught_up(self, *, within: float = PATIENCE) -> None:
        """Wait until the tail has routed whatever is committed now."""
        target, incarnation = await self._here(within)

        def met() -> bool:
            done = self.outlet.done
            return done is not None and done.incarnation == incarnation and done.reading.covers(target)

        if not met():  # a needless look would find what is committed after this
            self.tail.wake()
        await until(met, within=within)

    async def settled(self, *peers: Peer, within: float = PATIENCE) -> None:
        """Wait until whatever is committed now has reached these peers, all unless told, and is confirmed."""
        await self.caught_up(within=within)
        await until(lambda: all(peer.is_settled for peer in peers or self.peers), within=within)

    async def recorded(self) -> None:
        """Wait until every receipt is written."""
        await until(lambda: self.receipts.unwritten == 0)

    async def _here(self, within: float) -> tuple[Snapshot, object]:
        async with asyncio.timeout(within):
            while True:
                try:
                    async with self.pool.driver() as connection:
                        horizon = await reads.horizon(connection)
                except UNREACHABLE:
                    await asyncio.sleep(0.05)  # the server is away, or a pooled connection died with it
                else:
                    return horizon.snapshot, horizon.incarnation

    def _wake(self) -> None:
        self.wakes += 1
        self.tail.wake()


@asynccontextmanager
async def running(url: str, *, listen_url: str | None = None, **knobs: Any) -> AsyncIterator[Rig]:
    """A rig at work on a database; `knobs` are those of `Knobs`."""
    rig = Rig(url, Knobs(**knobs), listen_url=listen_url)
    try:
        await rig.start()
        yield rig
    finally:
        await rig.stop()
