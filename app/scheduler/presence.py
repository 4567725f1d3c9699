"""Say that this process lives, and which devices are here."""

from collections.abc import Callable
from typing import Any

from app.scheduler.ports import Hub
from app.store import processes, retention
from app.store.database import Database
from app.store.processes import Process

DEVICES_AT_ONCE = 500


class Heartbeat:
    """Keeps this process's row in `realtime_processes`; `stats` are for people and limits.

    `heard` gets what the others told of users with many connections; whoever was silent for `believed`
    seconds is not counted.
    """

    def __init__(
        self,
        database: Database,
        process: Process,
        stats: Callable[[], dict[str, Any]],
        *,
        heard: Callable[[list[dict[str, int]]], None],
        believed: float,
    ) -> None:
        self._database = database
        self._process = process
        self._stats = stats
        self._heard = heard
        self._believed = believed

    async def run(self) -> None:
        """Beat once, and listen to the others."""
        async with self._database.driver() as connection:
            await processes.beat(connection, self._process, self._stats())
            self._heard(await processes.crowds_of_others(connection, self._process, self._believed))

    async def leave(self) -> None:
        """Take the row away: the process ends."""
        async with self._database.driver() as connection:
            await processes.leave(connection, self._process)


class DevicesSeen:
    """Keeps devices that are connected from being forgotten: else only a confirmation says they are here.

    `refresh_after`: seconds for which a device counts as just seen.
    """

    def __init__(self, database: Database, hub: Hub, *, refresh_after: float = 3600.0) -> None:
        self._database = database
        self._hub = hub
        self._refresh_after = refresh_after

    async def run(self) -> None:
        """Note once who is here."""
        here = sorted(
            {
                one.device_id
                for connections in self._hub.users.values()
                for one in connections
                if one.device_id is not None
            }
        )
        for start in range(0, len(here), DEVICES_AT_ONCE):
            async with self._database.driver() as connection:
                some = here[start : start + DEVICES_AT_ONCE]
                await retention.refresh_devices(connection, some, self._refresh_after)
