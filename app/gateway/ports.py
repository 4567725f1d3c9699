"""What a connection needs of the rest of the service."""

from collections.abc import MutableMapping
from typing import Any, Protocol

from app.core.identity import Identity
from app.core.messages import RowKey
from app.core.position import Position
from app.core.reads import Begun, Page


class Device(Protocol):
    """The device a connection belongs to."""

    @property
    def id(self) -> int:
        """Its id in `users_devices`."""

    @property
    def generation(self) -> int:
        """How often it has connected; what an older connection says of the position does not count."""

    @property
    def takes_sync(self) -> bool:
        """Whether sync rows are for it."""

    @property
    def position(self) -> Position | None:
        """What it has got so far, as stored."""


class Reader(Protocol):
    """The reads of one connection that catches up."""

    async def start(self, position: Position | None, *, with_undelivered: bool) -> Begun:
        """Begin a read; raises Interrupted, Unavailable, UserErased."""

    async def proven(self, position: Position) -> tuple[tuple[RowKey, ...], tuple[RowKey, ...]]:
        """List undelivered events and sync rows that this device's position covers; raises Unavailable."""

    async def next_page(self) -> Page:
        """Go on with it; raises Interrupted, Unavailable, UserErased."""


class Archive(Protocol):
    """Where what a user missed is read from."""

    def reader(
        self, user_id: str, *, takes_sync: bool, device_id: int | None, floor: Position | None
    ) -> Reader:
        """Read on behalf of one connection; `floor` is what had been routed when it was registered."""


class Receipts(Protocol):
    """Where confirmations go."""

    def add(self, user_id: str, events: tuple[RowKey, ...], sync_rows: tuple[RowKey, ...]) -> None:
        """Note that rows have reached their user."""

    def move(self, device: tuple[int, str, int], position: Position) -> None:
        """Note what a device has; `device` is its id, its user, and the generation of the connection."""

    def settle(self, rows: tuple[RowKey, ...], device_id: int | None) -> None:
        """Note that rows that were to be sent again have been processed."""

    def refuse(self, row: RowKey, user_id: str, device_id: int | None, reason: str | None) -> None:
        """Note that a row could not be processed, and is to be sent again later."""

    def left_unacked(self, row: RowKey, user_id: str, device_id: int | None) -> None:
        """Note that a connection ended with this row as the oldest that it had not acknowledged."""


class Doorkeeper(Protocol):
    """Where it is found out who somebody is."""

    async def identify(self, scope: MutableMapping[str, Any], *, by_cookie: bool = False) -> Identity | None:
        """Say who asks, by what an ASGI scope carries; None where nobody is asked for a token.

        Raises Denied, and Unavailable while that cannot be found out. `by_cookie`: a cookie will do.
        """

    async def renew(self, identity: Identity, token: str) -> Identity:
        """Say what a connection's new token makes of it; raises Denied and Unavailable."""


class Devices(Protocol):
    """Where a device is looked up when it connects."""

    async def connect(self, user_id: str, device_token: str) -> Device | None:
        """Mark the device active and begin its next generation; None when the user has no such device.

        Raises Unavailable while the database is away.
        """

    async def is_registered(self, device_token: str) -> bool:
        """Whether anybody has this device; raises Unavailable."""
