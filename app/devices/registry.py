"""Devices as the rest of the service sees them."""

import asyncpg

from app.core.position import Horizon
from app.core.reads import Unavailable
from app.store import devices, reads
from app.store.database import UNREACHABLE, Database
from app.store.devices import Connected, DeviceRow


class Registry:
    """Devices of all users; every method raises Unavailable while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def connect(self, user_id: str, device_token: str) -> Connected | None:
        """Mark a device active and begin its next generation; None when the user has no such device."""
        try:
            async with self._database.driver() as connection:
                return await devices.connect(connection, user_id, device_token)
        except (*UNREACHABLE, asyncpg.PostgresError) as error:
            raise Unavailable(type(error).__name__) from error

    async def register(
        self, user_id: str, device_token: str, platform: str, previous_token: str | None
    ) -> tuple[DeviceRow, bool]:
        """Register or refresh a device; returns it and whether it is new. Raises UnknownUser."""
        # Read before the device is written: what is committed in between is read again, never missed.
        now = await self._horizon()
        try:
            return await devices.register(
                self._database, user_id, device_token, platform, previous_token, now
            )
        except UNREACHABLE as error:
            raise Unavailable(type(error).__name__) from error

    async def of_user(self, user_id: str) -> list[DeviceRow]:
        """A user's devices, oldest first."""
        try:
            return await devices.of_user(self._database, user_id)
        except UNREACHABLE as error:
            raise Unavailable(type(error).__name__) from error

    async def remove(self, user_id: str, device_id: int) -> bool:
        """Remove a device; its connections are closed by the command this leaves."""
        try:
            return await devices.remove(self._database, user_id, device_id)
        except UNREACHABLE as error:
            raise Unavailable(type(error).__name__) from error

    async def _horizon(self) -> Horizon:
        try:
            async with self._database.driver() as connection:
                return await reads.horizon(connection)
        except (*UNREACHABLE, asyncpg.PostgresError, reads.Unfit) as error:
            raise Unavailable(type(error).__name__) from error
