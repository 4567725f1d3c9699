"""One process full of clients: `python -m bench.load.readers DIALECT TARGET`.

It takes orders as lines of JSON on standard input, answers each by one line, and ends with its input.
"""

import asyncio
import json
import sys
import time
from typing import Any

from bench.load.clients import Client, Listening
from bench.load.dialects import DIALECTS
from bench.load.tally import Tally


class Readers:
    """The clients of this process, by number; number 7 is user p7."""

    def __init__(self, dialect: str, target: str) -> None:
        self._make = DIALECTS[dialect]
        self._target = target
        self._tally = Tally()
        self._clients: dict[int, Client] = {}

    async def obey(self, order: dict[str, Any]) -> dict[str, Any]:
        """Carry out one order."""
        match order:
            case {"do": "connect", "first": first, "count": count, "at_once": at_once}:
                began = time.monotonic()
                refusals = await self._connect(range(first, first + count), at_once)
                return {
                    "refused": len(refusals),
                    "because": refusals[:1],
                    "seconds": time.monotonic() - began,
                }
            case {"do": "drop"}:
                for client in self._clients.values():
                    client.drop()
                return {}
            case {"do": "count", "wanted": wanted}:
                got = [client.got for client in self._clients.values()]
                return {"got": sum(got), "complete": sum(count >= wanted for count in got)}
            case {"do": "take"}:
                return self._take()
        raise ValueError(order)

    def _take(self) -> dict[str, Any]:
        rung: list[tuple[str, int]] = []
        for client in self._clients.values():
            if isinstance(client, Listening):
                rung, client.rung = client.rung, []
            client.got = 0
        return {**self._tally.take(), "rung": rung}

    async def _connect(self, numbers: range, at_once: int) -> list[str]:
        slots = asyncio.Semaphore(at_once)
        refusals: list[str] = []

        async def connect(number: int) -> None:
            if number not in self._clients:
                self._clients[number] = self._make(self._target, f"p{number}", self._tally)
            async with slots:
                try:
                    await self._clients[number].open()
                except OSError as error:
                    refusals.append(str(error))

        await asyncio.gather(*map(connect, numbers))
        return refusals


async def serve(dialect: str, target: str) -> None:
    """Take orders until standard input ends."""
    readers = Readers(dialect, target)
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(orders), sys.stdin
    )
    while line := await orders.readline():
        print(json.dumps(await readers.obey(json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:3]))
