"""The shell of a session: performs what it decides on a socket and the receipts.

What is rare or long is elsewhere: the first message (`greeting.py`), reads (`reading.py`), the client's token
(`login.py`), where positions go (`positions.py`). Of these only the last has a part in each message.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from app.core import inbound, messages
from app.core.actions import (
    Action,
    Answer,
    Authenticate,
    Authenticated,
    Close,
    Complain,
    Confirmed,
    ExpiresSoon,
    NextPage,
    Refused,
    Send,
    SendPing,
    StartRead,
)
from app.core.close_codes import CloseCode
from app.core.flight import Limits, Pace
from app.core.identity import Identity
from app.core.messages import Message
from app.core.position import Pass
from app.core.session import Phase, Session
from app.core.token import Holder
from app.core.wishes import NOTHING, Wishes
from app.gateway.greeting import Greeting
from app.gateway.login import Login
from app.gateway.ports import Archive, Device, Doorkeeper, Receipts
from app.gateway.positions import Positions
from app.gateway.reading import Reading
from app.gateway.socket import Socket
from app.gateway.wheel import Wheel

log = logging.getLogger(__name__)

STORE_IDLE_POSITION = timedelta(minutes=10)
"""How old the stored position of a device may get while nothing is written for it."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What all connections of a process share; without a doorkeeper nobody can renew a token."""

    archive: Archive
    receipts: Receipts
    limits: Limits
    pace: Pace
    wheel: Wheel
    routed: Callable[[], Pass | None]
    on_gone: Callable[["Connection"], None]
    doorkeeper: Doorkeeper | None = None


class Connection:
    """One live WebSocket or SSE stream of one user; it may belong to a device."""

    __slots__ = (
        "_device",
        "_due",
        "_greeting",
        "_login",
        "_loop",
        "_positions",
        "_read_task",
        "_reading",
        "_renewal",
        "_session",
        "_slot",
        "_socket",
        "_surroundings",
        "id",
        "user_id",
    )

    def __init__(
        self,
        number: int,
        user_id: str,
        device: Device | None,
        socket: Socket,
        surroundings: Surroundings,
        wishes: Wishes = NOTHING,
        identity: Identity | None = None,
    ) -> None:
        self.id = number
        self.user_id = user_id
        self._device = device
        self._socket = socket
        self._surroundings = surroundings
        self._loop = asyncio.get_running_loop()
        takes_sync = device is not None and device.takes_sync
        holder = Holder(user_id, self.device_id if takes_sync else None)
        wishes, position = wishes.of(holder, device.position if device else None)
        heartbeat = surroundings.limits.heartbeat_interval
        self._greeting = greeting = Greeting(holder, wishes, socket, heartbeat=heartbeat)
        self._login = login = (
            None if identity is None else Login(number, identity, surroundings.doorkeeper, greeting, socket)
        )
        self._session = Session(
            surroundings.limits,
            surroundings.pace,
            position=position,
            device_id=self.device_id,
            takes_sync=takes_sync,
            tells_positions=greeting.tells_positions,
            is_proven=wishes.position is not None,
            acks=wishes.acks,
            expires_at=None if login is None else login.ends_at(),
        )
        routed = surroundings.routed()
        floor = None if routed is None else routed.end()
        reader = surroundings.archive.reader(
            user_id, takes_sync=takes_sync, device_id=self.device_id, floor=floor
        )
        self._reading = Reading(
            number, user_id, self._session, reader, surroundings.receipts, greeting, login, device
        )
        self._positions = Positions(
            self._session,
            surroundings.routed,
            surroundings.receipts,
            holder,
            None if device is None else (device.id, user_id, device.generation),
            socket.beside,
            in_messages=wishes.positions,
        )
        self._read_task: asyncio.Task[None] | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._due = float("inf")
        self._slot: int | None = None

    @property
    def device_id(self) -> int | None:
        """The device it belongs to, if any."""
        return self._device.id if self._device is not None else None

    @property
    def generation(self) -> int:
        """How often its device had connected before; 0 without a device."""
        return self._device.generation if self._device is not None else 0

    @property
    def session(self) -> Session:
        """What it has and is owed; for health and tests."""
        return self._session

    @property
    def is_over(self) -> bool:
        """Whether it has ended, or is being closed."""
        return self._session.phase is Phase.CLOSED

    def is_revoked(self, revoked_before: float | None) -> bool:
        """Whether it must end when tokens from before that time, in unix seconds, are taken no longer.

        True where the time is not known, or nobody had a token.
        """
        return self._login is None or revoked_before is None or self._login.is_revoked(revoked_before)

    # ---- what others tell it

    def open(self) -> None:
        """Say `connected` and begin to catch up; it must be registered in the hub before.

        A client that asked for more is told more with that, which only the first read knows.
        """
        self._greeting.say_at_once()
        self._perform(self._session.open(self._loop.time()))

    def route(self, rows: Iterable[Message], found_by: Pass) -> None:
        """Take rows that the tail found."""
        self._perform(self._session.route(rows, found_by, self._loop.time()))

    def redeliver(self, message: Message) -> None:
        """Send a stale row again, unless it is on its way."""
        self._perform(self._session.redeliver(message, self._loop.time()))

    def read_again(self) -> None:
        """Look at what waits once more: some of it may not be for this user any longer."""
        self._perform(self._session.read_again(self._loop.time()))

    def repeated(self, done: Pass) -> None:
        """Note that every row of a pass across a restart of the database has been routed."""
        self._session.repeated(done)

    def close(self, code: CloseCode, reason: str) -> None:
        """Close it from our side."""
        self._positions.store_idle(timedelta(0))
        self._perform(self._session.close(code, reason))

    def hasten(self) -> None:
        """Ask for a confirmation of what is in flight, since the process is about to leave."""
        self._perform(self._session.hasten(self._loop.time()))

    def leave(self, after_ms: int) -> None:
        """Tell the client that it is closed in so many milliseconds, and to come back then."""
        if self._greeting.is_said:  # which comes first, always
            self._socket.send(messages.reconnect(after_ms))
            self._socket.flush()

    def abandon(self, fault: Exception) -> None:
        """Drop it without a word, since it failed; its fault must reach nobody else, so nothing is raised."""
        log.error("connection %s failed", self.id, exc_info=fault)
        with suppress(Exception):
            self._socket.abort()

    # ---- what the socket tells it

    def on_text(self, text: str) -> None:
        """Take a text message of the client."""
        self._perform(self._session.receive(text, self._loop.time()))

    def on_binary(self, size: int) -> None:  # noqa: ARG002 - the socket says it, nobody needs it
        """Complain about a binary message."""
        self._perform(self._session.reject(inbound.BINARY, self._loop.time()))

    def on_too_large(self) -> None:
        """Complain about a message above the limit."""
        self._perform(self._session.reject(inbound.TOO_LARGE, self._loop.time()))

    def on_pong(self) -> None:
        """Take the answer to the last ping."""
        self._perform(self._session.pong(self._loop.time()))
        self._positions.store_idle(STORE_IDLE_POSITION)

    def on_time(self) -> None:
        """Look at what time has brought."""
        self._slot, self._due = None, float("inf")
        self._perform(self._session.tick(self._loop.time()))

    def on_writable(self) -> None:
        """Nothing waits for this: the window bounds what is in the transport."""

    def on_closed(self, code: int | None) -> None:
        """Let go of everything; what was in flight stays undelivered."""
        self._positions.store_idle(timedelta(0))
        self._end(f"closed with {code}" if code is not None else "dropped")

    # ---- performing

    def _perform(self, actions: list[Action]) -> None:
        socket = self._socket
        for action in actions:
            match action:
                case Send():
                    self._send(action)
                case SendPing():
                    self._ping()
                case Confirmed() | Refused():
                    self._note(action)
                case StartRead() | NextPage():
                    self._read_task = self._loop.create_task(self._read(action))
                case Answer():
                    self._answer()
                case Authenticate() | Authenticated() | ExpiresSoon():
                    self._see_to_token(action)
                case Complain(problem):
                    self._greeting.tell(messages.error(problem.code, problem.message))
                case Close(code, reason):
                    self._end(reason)
                    self._greeting.tell_held()
                    socket.close(code, reason)
        socket.flush()
        self._arm()

    def _send(self, sending: Send) -> None:
        body = sending.message.body
        if sending.number is not None:
            body = messages.with_number(body, sending.number, redelivered=sending.again)
        if sending.position is not None:
            body = self._positions.placed(body, sending.position)
        self._socket.send(body)

    def _note(self, confirmed: Confirmed | Refused) -> None:
        receipts = self._surroundings.receipts
        if isinstance(confirmed, Refused):
            receipts.refuse(confirmed.message.key, self.user_id, self.device_id, confirmed.reason)
            return
        receipts.add(self.user_id, confirmed.events, confirmed.sync_rows)
        if confirmed.position is not None:
            self._positions.confirmed(confirmed.position)
        receipts.settle(confirmed.redelivered, self.device_id)

    async def _read(self, step: StartRead | NextPage) -> None:
        actions = await self._reading.perform(step)
        # Idle, it keeps no finished task, which is half a kilobyte.
        self._read_task = None
        if self._login is not None:
            self._login.tell_what_waits()
        self._perform(actions)

    def _see_to_token(self, action: Authenticate | Authenticated | ExpiresSoon) -> None:
        if self._login is None:
            return  # which a session without a token does not ask for
        if isinstance(action, Authenticate):
            self._renewal = self._loop.create_task(self._renew(self._login, action.token))
        else:
            self._login.tell_of(action)

    async def _renew(self, login: Login, token: str) -> None:
        actions = await login.renew(token, self._session)
        self._renewal = None
        self._perform(actions)

    def _ping(self) -> None:
        if self._socket.beside is not None and self._greeting.is_said:
            self._positions.tell_beside()
        self._socket.ping()

    def _answer(self) -> None:
        if not self._greeting.is_said:
            return  # `connected` comes first, always
        self._socket.send(self._positions.placed_now(messages.pong(datetime.now(UTC))))

    def _arm(self) -> None:
        due = self._session.deadline()
        if due >= self._due:
            return  # what is set looks again when its time has come
        self._disarm()
        self._due = due
        self._slot = self._surroundings.wheel.set(self, due)

    def _disarm(self) -> None:
        if self._slot is not None:
            self._surroundings.wheel.unset(self, self._slot)
        self._slot, self._due = None, float("inf")

    def _end(self, reason: str) -> None:
        confirming = self._session.confirming
        for row_id in confirming.unconfirmed:
            log.info("event %s was not confirmed on connection %s: %s", row_id, self.id, reason)
        if confirming.unproven:
            told = "connection %s did not live on to confirm %s events: %s"
            log.info(told, self.id, confirming.unproven, reason)
        if (oldest := confirming.oldest_unacked) is not None:
            self._surroundings.receipts.left_unacked(oldest.key, self.user_id, self.device_id)
        self._session.closed()
        self._disarm()
        for task in (self._read_task, self._renewal):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._read_task = self._renewal = None
        self._surroundings.on_gone(self)
