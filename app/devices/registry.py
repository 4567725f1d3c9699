"""Devices as the rest of the service sees them."""

from collections.abc import Callable
from dataclasses import replace

from app.core.position import Horizon, Position
from app.store import devices, reads
from app.store.database import Database
from app.store.devices import DeviceRow, KnownDevice
from app.store.reaching import reaching_the_database

_FAILURE = "devices cannot be looked up"


class Registry:
    """Devices of all users; every method raises Unavailable while the database is away.

    `take_over` says what a device of this generation had confirmed here that is not written down yet.
    """

    def __init__(self, database: Database, take_over: Callable[[int, str, int], Position | None]) -> None:
        self._database = database
        self._take_over = take_over

    async def connect(self, user_id: str, device_token: str) -> KnownDevice | None:
        """Mark a device active and begin its next generation; None when the user has no such device."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                device = await devices.connect(connection, user_id, device_token)
        if device is None:
            return None
        unwritten = self._take_over(device.id, user_id, device.generation)
        return replace(device, position=unwritten or device.position)

    async def find(self, user_id: str, device_token: str) -> KnownDevice | None:
        """Look a device up and leave it as it is; None when the user has no such device."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                return await devices.find(connection, user_id, device_token)

    async def is_registered(self, device_token: str) -> bool:
        """Whether anybody has this device."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                return await devices.is_registered(connection, device_token)

    async def register(
        self, user_id: str, device_token: str, platform: str, previous_token: str | None
    ) -> tuple[DeviceRow, bool]:
        """Register or refresh a device; returns it and whether it is new. Raises UnknownUser."""
        with reaching_the_database(_FAILURE):
            # Read before the device is written: what is committed in between is read again, never missed.
            now = await self._horizon()
            return await devices.register(
                self._database, user_id, device_token, platform, previous_token, now
            )

    async def of_user(self, user_id: str) -> list[DeviceRow]:
        """A user's devices, oldest first."""
        with reaching_the_database(_FAILURE):
            return await devices.of_user(self._database, user_id)

    async def remove(self, user_id: str, device_id: int) -> bool:
        """Remove a device; its connections are closed by the command this leaves."""
        with reaching_the_database(_FAILURE):
            return await devices.remove(self._database, user_id, device_id)

    async def _horizon(self) -> Horizon:
        async with self._database.driver() as connection:
            return await reads.horizon(connection)
