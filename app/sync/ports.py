"""What sync needs of the rest of the service."""

from collections.abc import Callable
from typing import Protocol

from app.core.messages import Message, RowKey
from app.core.position import Position
from app.core.reads import Begun, Page
from app.store.devices import KnownDevice


class Reader(Protocol):
    """The reads of one request."""

    async def start(self, position: Position | None, *, with_undelivered: bool) -> Begun:
        """Begin a read; raises Interrupted, Unavailable, UserErased."""

    async def proven(self, position: Position) -> tuple[tuple[RowKey, ...], tuple[RowKey, ...]]:
        """List undelivered events and sync rows that a position covers; raises Unavailable."""

    async def due(self, limit: int) -> list[Message]:
        """List what is to be sent again by now, after a read; raises Unavailable."""

    async def next_page(self) -> Page:
        """Go on with it; raises Interrupted, Unavailable, UserErased."""


class Archive(Protocol):
    """Where what a user missed is read from."""

    def reader(self, user_id: str, *, takes_sync: bool, device_id: int | None) -> Reader:
        """Read on behalf of one request."""


ArchiveOf = Callable[[int], Archive]
"""The archive, read in pages of so many rows."""


class Devices(Protocol):
    """Where a device is looked up."""

    async def find(self, user_id: str, device_token: str) -> KnownDevice | None:
        """Look a device up and leave it as it is; raises Unavailable."""

    async def is_registered(self, device_token: str) -> bool:
        """Whether anybody has this device; raises Unavailable."""


class Receipts(Protocol):
    """Where what could not be marked at once is marked later."""

    def add(self, user_id: str, events: tuple[RowKey, ...], sync_rows: tuple[RowKey, ...]) -> None:
        """Note that rows have reached their user."""

    def move(self, device: tuple[int, str, int], position: Position) -> None:
        """Note what a device has; `device` is its id, its user, and the generation of the connection."""

    def settle(self, rows: tuple[RowKey, ...], device_id: int | None) -> None:
        """Note that rows that were to be sent again have been processed."""
