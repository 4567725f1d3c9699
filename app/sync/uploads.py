"""What a device did while it was away, queued for the user's other devices and for the host."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from app.core.reads import Unavailable
from app.store.database import Database
from app.store.reaching import reaching_the_database
from app.store.sync import Action, Held, upload
from app.sync import actions


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one action; `key` is None where it had none that can be told again."""

    key: str | None
    status: Literal["accepted", "duplicate", "invalid"]
    reason: str | None = None


class Uploads:
    """Takes what devices upload."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def take(self, user_id: str, device_id: int, items: Sequence[Any]) -> list[Result]:
        """Queue what is valid and new; returns a result for each item, in their order.

        Raises Unavailable and UserGone.
        """
        results: list[Result] = []
        first: dict[str, tuple[int, Action]] = {}
        for place, item in enumerate(items):
            try:
                action = actions.read(item)
            except actions.Invalid as invalid:
                results.append(Result(invalid.key, "invalid", invalid.reason))
            else:
                results.append(Result(action.key, "duplicate"))
                first.setdefault(action.key, (place, action))
            await asyncio.sleep(0)  # many large ones must not keep the sockets waiting
        for key in await self._queue(user_id, device_id, [action for _, action in first.values()]):
            results[first[key][0]] = Result(key, "accepted")
        return results

    async def _queue(self, user_id: str, device_id: int, wanted: list[Action]) -> set[str]:
        if not wanted:
            return set()
        try:
            with reaching_the_database("an upload cannot be written"):
                async with self._database.driver() as connection:
                    return await upload(connection, user_id, device_id, wanted)
        except Held as error:
            raise Unavailable(str(error)) from error
