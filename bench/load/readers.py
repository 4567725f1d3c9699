"""One process full of clients: `python -m bench.load.readers DIALECT TARGET`.

It takes orders as lines of JSON on standard input, answers each by one line, and ends with its input.
"""

import asyncio
import json
import random
import sys
import time
from typing import Any

from bench.load.clients import Client, Listening
from bench.load.dialects import DIALECTS
from bench.load.tally import Tally

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 10.0
"""Seconds that a client waits at most before it tries again, doubled each time."""


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
            case {"do": "connect", "first": first, "count": count, "at_once": at_once, "tries": tries}:
                began = time.monotonic()
                refusals, failed = await self._connect(range(first, first + count), at_once, tries)
                seconds = time.monotonic() - began
                return {
                    "failed": failed,
                    "refused": len(refusals),
                    "because": refusals[:1],
                    "seconds": seconds,
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

    async def _connect(self, numbers: range, at_once: int, tries: int) -> tuple[list[str], int]:
        """Why attempts were refused, and how many clients gave up."""
        slots = asyncio.Semaphore(at_once)
        refusals: list[str] = []
        failed = 0

        async def connect(number: int) -> None:
            nonlocal failed
            if number not in self._clients:
                self._clients[number] = self._make(self._target, f"p{number}", self._tally)
            async with slots:
                for attempt in range(tries):
                    try:
                        await self._clients[number].open()
                    except OSError as error:
                        refusals.append(str(error))
                    else:
                        return
                    await asyncio.sleep(random.uniform(0, min(FIRST_PAUSE * 2**attempt, LONGEST_PAUSE)))
            failed += 1

        await asyncio.gather(*map(connect, numbers))
        return refusals, failed


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
