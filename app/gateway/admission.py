"""Who wants to connect, whether they may, and what they are told when not: the same on every transport."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import parse_qsl

from app.core import messages
from app.core.close_codes import CloseCode
from app.core.identity import BadCredentials, Denied, Identity, NotAllowed, Unauthenticated
from app.core.reads import Unavailable
from app.core.wishes import Wishes
from app.gateway.asgi_socket import Message, Receive
from app.gateway.connection import Connection, Surroundings
from app.gateway.hub import Hub
from app.gateway.ports import Device, Devices, Doorkeeper
from app.gateway.presence import Left, while_there
from app.gateway.socket import OpenEvents, Socket, SocketEvents

MAX_ID = 255
"""Characters of a user id and of a device token, as in the tables."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection is closed at once; the client is told `code` and `message` before.

    `after_ms`: when it may come back, where that is known. `gave_nothing`: for want of any token.
    """

    close_code: CloseCode
    code: str
    message: str
    after_ms: int | None = None
    gave_nothing: bool = False


NO_USER = Refusal(
    CloseCode.BAD_REQUEST, "malformed", "Connect with ?user_id= and the id of a user, at most 255 characters."
)
NO_SUCH_DEVICE = Refusal(
    CloseCode.BAD_REQUEST,
    "unknown_device",
    "This device is not registered for this user; register it with POST /realtime/devices.",
)
ANOTHERS_DEVICE = Refusal(
    CloseCode.NOT_ALLOWED, "not_allowed", "This device is registered for another user; register it for yours."
)
TOO_MANY = Refusal(
    CloseCode.TOO_MANY,
    "too_many_connections",
    "This user has too many connections; close one of them first.",
    after_ms=5000,
)
TRY_LATER = Refusal(
    CloseCode.INTERNAL_ERROR,
    "unavailable",
    "Who connects cannot be looked up just now; reconnect with backoff.",
)


@dataclass(frozen=True, slots=True)
class Guest:
    """Somebody who may connect as this user, with which device, and by what token where one was asked for."""

    user_id: str
    device: Device | None
    identity: Identity | None = None


@dataclass(frozen=True, slots=True)
class Admission:
    """How many connections there may be."""

    per_user: int = 20
    per_process: int = 15_000


class Reception:
    """Lets clients in and makes their connections, whatever carries them."""

    def __init__(
        self,
        hub: Hub,
        doorkeeper: Doorkeeper,
        devices: Devices,
        admission: Admission,
        elsewhere: Callable[[str], int],
        *,
        is_open: Callable[[], bool],
    ) -> None:
        self._hub = hub
        self._doorkeeper = doorkeeper
        self._devices = devices
        self._admission = admission
        self._elsewhere = elsewhere
        self._is_open = is_open
        self._numbers = itertools.count(1)

    async def admit(
        self, scope: Message, receive: Receive, *, by_cookie: bool = False
    ) -> Guest | Refusal | None:
        """Say who wants to connect, or why not; None when this process takes nobody, or the client has left.

        `by_cookie`: a cookie will do for a token.
        """
        try:
            wanted = None if self._is_full() else await self._wanted(scope, receive, by_cookie=by_cookie)
        except Left:
            return None
        return None if self._is_full() else wanted  # others may have come while a device was looked up

    def connects(self, guest: Guest, wishes: Wishes, surroundings: Surroundings) -> OpenEvents:
        """How the connection of a guest is made of its socket."""

        def open_events(socket: Socket) -> SocketEvents:
            number = next(self._numbers)
            connection = Connection(
                number, guest.user_id, guest.device, socket, surroundings, wishes, guest.identity
            )
            self._hub.add(connection)
            asyncio.get_running_loop().call_soon(connection.open)
            return connection

        return open_events

    async def _wanted(self, scope: Message, receive: Receive, *, by_cookie: bool) -> Guest | Refusal:
        parameters = query(scope)
        user_id = parameters.get("user_id", "")
        try:
            identity = await self._doorkeeper.identify(scope, by_cookie=by_cookie)
            if identity is not None:
                user_id = identity.acts_for(user_id or None)
        except Denied as denied:
            return _refusal(denied)
        except Unavailable:
            return TRY_LATER
        if not user_id or len(user_id) > MAX_ID or "\x00" in user_id:
            return NO_USER
        token = parameters.get("device_token") or header(scope, b"x-device-token")
        if token is None:
            return TOO_MANY if self._has_too_many(user_id, None) else Guest(user_id, None, identity)
        if len(token) > MAX_ID or "\x00" in token:
            return NO_SUCH_DEVICE
        try:
            # Who has left may be connected elsewhere by the time that this comes to the database, and a
            # generation of nobody would end that connection.
            device = await while_there(receive, self._devices.connect(user_id, token))
            if device is None:
                is_anothers = identity is not None and await self._devices.is_registered(token)
                return ANOTHERS_DEVICE if is_anothers else NO_SUCH_DEVICE
        except Unavailable:
            return TRY_LATER
        return TOO_MANY if self._has_too_many(user_id, device.id) else Guest(user_id, device, identity)

    def _has_too_many(self, user_id: str, device_id: int | None) -> bool:
        """Whether a user may have no more; the connections that a device takes over from do not count."""
        others = [one for one in self._hub.of(user_id) if device_id is None or one.device_id != device_id]
        return len(others) + self._elsewhere(user_id) >= self._admission.per_user

    def _is_full(self) -> bool:
        return not self._is_open() or self._hub.count >= self._admission.per_process


def _refusal(denied: Denied) -> Refusal:
    gave_nothing = False
    match denied:
        case NotAllowed():
            code = CloseCode.NOT_ALLOWED
        case BadCredentials():
            code = CloseCode.BAD_REQUEST
        case Unauthenticated():
            code, gave_nothing = CloseCode.UNAUTHENTICATED, denied.gave_nothing
        case _:
            code = CloseCode.UNAUTHENTICATED
    return Refusal(code, denied.code, denied.message, gave_nothing=gave_nothing)


def refuses(refusal: Refusal) -> OpenEvents:
    """How somebody who was accepted only to be told why not is told."""

    def open_events(socket: Socket) -> SocketEvents:
        asyncio.get_running_loop().call_soon(_say_goodbye, socket, refusal)
        return _Refused()

    return open_events


class _Refused:
    """Hears nothing any more."""

    __slots__ = ()

    def on_text(self, text: str) -> None:
        pass

    def on_binary(self, size: int) -> None:
        pass

    def on_too_large(self) -> None:
        pass

    def on_pong(self) -> None:
        pass

    def on_writable(self) -> None:
        pass

    def on_closed(self, code: int | None) -> None:
        pass


def _say_goodbye(socket: Socket, refusal: Refusal) -> None:
    socket.send(messages.error(refusal.code, refusal.message, refusal.after_ms))
    socket.close(refusal.close_code, refusal.code)


def query(scope: Message) -> dict[str, str]:
    """The query string's parameters, the first of each name; empty when it cannot be read."""
    try:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        return {}
    return dict(reversed(pairs))


def header(scope: Message, name: bytes) -> str | None:
    """The first header of this name, which is in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return None
