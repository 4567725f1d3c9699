"""The shell of a session: performs what it decides on a socket, a reader and the receipts."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
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
from app.core.identity import Denied, Identity, NotAllowed
from app.core.messages import Message
from app.core.position import Lost, Pass, Position
from app.core.reads import Begun, Interrupted, Unavailable, UserErased
from app.core.session import Phase, Session
from app.core.token import encode
from app.core.wishes import NOTHING, Wishes
from app.gateway.ports import Archive, Device, Doorkeeper, Receipts
from app.gateway.socket import Socket
from app.gateway.wheel import Wheel

log = logging.getLogger(__name__)

REVOKED = "this token was revoked; log in again"
RETRY_READ = 0.5
"""Seconds after which a read is tried again while the database is away, times 0.5 to 1.5."""
CANNOT_LOOK = inbound.Rejected("unavailable", "The token cannot be looked at just now; send it again.")
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
        "_expiry_told",
        "_identity",
        "_knows_of_gap",
        "_loop",
        "_reader",
        "_renewal",
        "_said_connected",
        "_session",
        "_slot",
        "_socket",
        "_stored_at",
        "_surroundings",
        "_task",
        "_tells_positions",
        "_wishes",
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
        self._wishes = wishes
        self._tells_positions = wishes.positions or socket.beside is not None
        self._said_connected = False
        self._knows_of_gap = False
        self._identity = identity
        self._expiry_told = True
        self._session = Session(
            surroundings.limits,
            surroundings.pace,
            position=wishes.position or (device.position if device else None),
            device_id=device.id if device else None,
            takes_sync=takes_sync,
            tells_positions=self._tells_positions,
            is_proven=wishes.position is not None,
            acks=wishes.acks,
            expires_at=None if identity is None else self._when(identity.expires_at),
        )
        routed = surroundings.routed()
        floor = None if routed is None else routed.end()
        self._reader = surroundings.archive.reader(
            user_id, takes_sync=takes_sync, device_id=self.device_id, floor=floor
        )
        self._stored_at: datetime | None = None
        self._task: asyncio.Task[None] | None = None
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
        return self._identity is None or revoked_before is None or self._identity.is_revoked(revoked_before)

    # ---- what others tell it

    def open(self) -> None:
        """Say `connected` and begin to catch up; it must be registered in the hub before.

        A client that asked for more is told more with that, which only the first read knows.
        """
        if not self._tells_positions and not self._wishes.acks:
            self._socket.send(messages.connected(self.user_id, datetime.now(UTC)))
            self._said_connected = True
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

    def close(self, code: CloseCode, reason: str) -> None:
        """Close it from our side."""
        self._store_idle_position(timedelta(0))
        self._perform(self._session.close(code, reason))

    def hasten(self) -> None:
        """Ask for a confirmation of what is in flight, since the process is about to leave."""
        self._perform(self._session.hasten(self._loop.time()))

    def leave(self, after_ms: int) -> None:
        """Tell the client that it is closed in so many milliseconds, and to come back then."""
        if self._said_connected:  # which comes first, always
            self._socket.send(messages.reconnect(after_ms))

    def abandon(self) -> None:
        """Drop it without a word."""
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
        self._store_idle_position(STORE_IDLE_POSITION)

    def on_time(self) -> None:
        """Look at what time has brought."""
        self._slot, self._due = None, float("inf")
        self._perform(self._session.tick(self._loop.time()))

    def on_writable(self) -> None:
        """Nothing waits for this: the window bounds what is in the transport."""

    def on_closed(self, code: int | None) -> None:
        """Let go of everything; what was in flight stays undelivered."""
        self._store_idle_position(timedelta(0))
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
                    self._task = self._loop.create_task(self._read(action))
                case Answer():
                    self._answer()
                case Authenticate() | Authenticated() | ExpiresSoon():
                    self._see_to_token(action)
                case Complain(problem):
                    socket.send(messages.error(problem.code, problem.message))
                case Close(code, reason):
                    self._end(reason)
                    socket.close(code, reason)
        self._arm()

    def _send(self, sending: Send) -> None:
        body = sending.message.body
        if sending.number is not None:
            body = messages.with_number(body, sending.number, redelivered=sending.again)
        if sending.position is not None:
            body = self._placed(body, sending.position)
        self._socket.send(body)

    def _note(self, confirmed: Confirmed | Refused) -> None:
        receipts = self._surroundings.receipts
        if isinstance(confirmed, Refused):
            receipts.refuse(confirmed.message.id, self.user_id, self.device_id, confirmed.reason)
            return
        device = self._device
        receipts.add(self.user_id, confirmed.events, confirmed.sync_rows)
        if device is not None and confirmed.position is not None:
            receipts.move((device.id, device.generation), confirmed.position)
        receipts.settle(confirmed.redelivered, self.device_id)

    async def _read(self, step: StartRead | NextPage) -> None:
        """Read until there is a page to hand over, however long the database is away."""
        session, reader = self._session, self._reader
        try:
            while True:
                try:
                    if isinstance(step, StartRead):
                        begun = await reader.start(step.position, with_undelivered=step.with_undelivered)
                        if self._identity is not None and self._identity.is_revoked(begun.revoked_before):
                            # Since it was let in, and before the hub knew it.
                            raise NotAllowed(REVOKED)
                        session.begin_read(begun.first, partial=begun.partial)
                        await self._mark_proven(begun)
                        lost = begun.lost if self._said_connected else None
                        self._say_resumed(begun)
                        self._tell_expiry()
                        page = begun.page
                    else:
                        page = await reader.next_page()
                        lost = page.lost
                    break
                except Unavailable:
                    await asyncio.sleep(RETRY_READ * random.uniform(0.5, 1.5))  # noqa: S311
            if lost is Lost.RETENTION and self._tells_positions and not self._knows_of_gap:
                # Only `connected` can tell it; the next one does.
                actions = session.close(CloseCode.RESTART, "rows were removed before you got them; reconnect")
            else:
                actions = session.page(page.messages, more=page.more, now=self._loop.time())
        except Interrupted:
            actions = session.interrupt(self._loop.time())
        except NotAllowed as denied:
            actions = session.close(CloseCode.NOT_ALLOWED, denied.message)
        except UserErased:
            actions = session.close(CloseCode.NOT_ALLOWED, "this user was deleted")
        except Exception:
            log.exception("connection %s cannot catch up", self.id)
            actions = session.close(CloseCode.INTERNAL_ERROR, "internal error")
        self._perform(actions)

    async def _mark_proven(self, begun: Begun) -> None:
        """What the client's own position covers has reached the user, confirmed before or not.

        Only within one incarnation: after a crash its xids can be those of rows that it never got.
        """
        own = self._wishes.position
        if own is None or begun.lost is not None or self._said_connected:
            return
        if own.incarnation == begun.first.incarnation:
            events, sync_rows = await self._reader.proven(own)
            self._surroundings.receipts.add(self.user_id, events, sync_rows)

    def _say_resumed(self, begun: Begun) -> None:
        position = self._session.position
        if self._said_connected or position is None:
            return
        self._said_connected = True
        wishes, lost = self._wishes, begun.lost
        exact = lost is None and not wishes.malformed
        reason = None if exact else Lost.MALFORMED if wishes.malformed else lost
        self._knows_of_gap = not exact
        own = exact and wishes.position is not None
        # The client's own covers no more than what it has been sent, and so does where this read begins.
        token = wishes.token if own else encode(position)
        if self._socket.beside is not None:
            self._socket.beside.position(token)
        now = datetime.now(UTC)
        asked_for_positions = wishes.positions or bool(wishes.token)
        if not asked_for_positions and not wishes.acks:
            self._socket.send(messages.connected(self.user_id, now))
            return
        self._socket.send(
            messages.connected_for_more(
                self.user_id,
                now,
                epoch=begun.first.incarnation.life,
                heartbeat_ms=int(self._surroundings.limits.heartbeat_interval * 1000),
                resumption=messages.Resumption(token, exact, reason) if asked_for_positions else None,
            )
        )

    def _see_to_token(self, action: Authenticate | Authenticated | ExpiresSoon) -> None:
        match action:
            case Authenticate(token):
                self._renewal = self._loop.create_task(self._authenticate(token))
            case Authenticated(expires_in):
                self._socket.send(messages.authenticated(self.user_id, expires_in, datetime.now(UTC)))
            case ExpiresSoon():
                self._expiry_told = False
                self._tell_expiry()

    def _tell_expiry(self) -> None:
        """Tell that the token expires soon, once `connected` was said, which comes first."""
        if not self._said_connected or self._expiry_told or self._identity is None:
            return
        self._expiry_told = True
        self._socket.send(messages.token_expiring(self._identity.expires_at - time.time()))

    async def _authenticate(self, token: str) -> None:
        """Look at the client's new token."""
        identity, doorkeeper = self._identity, self._surroundings.doorkeeper
        session = self._session
        try:
            if identity is None or doorkeeper is None:
                actions = session.not_renewed(inbound.NO_AUTH, self._loop.time())
            else:
                self._identity = await doorkeeper.renew(identity, token)
                self._expiry_told = True
                expires_at = self._when(self._identity.expires_at)
                actions = session.renewed(expires_at, self._loop.time())
        except NotAllowed as denied:
            self._socket.send(messages.error(denied.code, denied.message))
            actions = session.close(CloseCode.NOT_ALLOWED, denied.code)
        except Denied as denied:
            actions = session.not_renewed(inbound.Rejected(denied.code, denied.message), self._loop.time())
        except Unavailable:
            actions = session.not_renewed(CANNOT_LOOK, self._loop.time())
        except Exception:
            log.exception("connection %s cannot look at a token", self.id)
            actions = session.close(CloseCode.INTERNAL_ERROR, "internal error")
        self._perform(actions)

    def _when(self, unix_time: float) -> float:
        """The same moment on the loop's clock."""
        return self._loop.time() + unix_time - time.time()

    def _placed(self, body: bytes, position: Position) -> bytes:
        """The message with its position where the client wants it, or nowhere when that goes beside it."""
        token = encode(position)
        if self._socket.beside is not None:
            self._socket.beside.position(token)
        return messages.with_position(body, token) if self._wishes.positions else body

    def _ping(self) -> None:
        if self._socket.beside is not None and self._said_connected:
            position = self._session.position_told(self._surroundings.routed())
            if position is not None:
                self._socket.beside.position(encode(position))
        self._socket.ping()

    def _answer(self) -> None:
        if not self._said_connected:
            return  # `connected` comes first, always
        body = messages.pong(datetime.now(UTC))
        if self._wishes.positions:
            position = self._session.position_told(self._surroundings.routed())
            body = body if position is None else messages.with_position(body, encode(position))
        self._socket.send(body)

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

    def _store_idle_position(self, older_than: timedelta) -> None:
        if self._device is None:
            return
        position = self._session.settled_position(self._surroundings.routed())
        if position is None or position == self._session.position:
            return
        if self._stored_at is None or position.taken_at - self._stored_at >= older_than:
            self._stored_at = position.taken_at
            self._surroundings.receipts.move((self._device.id, self._device.generation), position)

    def _end(self, reason: str) -> None:
        confirming = self._session.confirming
        for row_id in confirming.unconfirmed:
            log.info("event %s was not confirmed on connection %s: %s", row_id, self.id, reason)
        if confirming.unproven:
            told = "connection %s did not live on to confirm %s events: %s"
            log.info(told, self.id, confirming.unproven, reason)
        if (oldest := confirming.oldest_unacked) is not None:
            self._surroundings.receipts.left_unacked(oldest.id, self.user_id, self.device_id)
        self._session.closed()
        self._disarm()
        for task in (self._task, self._renewal):
            if task is not None and task is not asyncio.current_task():
                task.cancel()
        self._task = self._renewal = None
        self._surroundings.on_gone(self)
