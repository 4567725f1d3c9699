"""A device that was away: `python -m bench.load.catching_up PORT DEVICE LAST CUT_AFTER SEED`.

It acknowledges every 50 messages, is cut off without a close at random places, on the average every CUT_AFTER
messages, and comes back, until it has message LAST. Prints one line of JSON.
"""

import asyncio
import json
import random
import sys
import time

from bench.frames import TEXT, frame
from bench.load.clients import Socket
from bench.load.tally import Tally

ACK_EVERY = 50


class Device(Socket):
    """A client that acknowledges."""

    def __init__(self, port: int, device: str, last: int) -> None:
        super().__init__(port, f"/realtime/ws?user_id=away&device_token={device}&ack=1", Tally())
        self._last = last
        self._left = 0
        self._done: asyncio.Future[None]
        self.ids: list[int] = []

    @property
    def complete(self) -> bool:
        """Whether it has the last message."""
        return bool(self.ids) and self.ids[-1] == self._last

    async def visit(self, messages: int) -> None:
        """Be connected for so many messages, or until it has all."""
        self._left = messages
        self._done = asyncio.get_running_loop().create_future()
        await self.open()
        await self._done
        if self.complete:
            await asyncio.sleep(0.5)  # the last ack is on its way
        self.drop()

    def on_message(self, payload: bytes) -> None:
        message = json.loads(payload)
        if "id" not in message or self._done.done():
            return
        self.ids.append(message["id"])
        self._left -= 1
        if message["seq"] % ACK_EVERY == 0 or self.complete:
            self.send(frame(TEXT, json.dumps({"type": "ack", "seq": message["seq"]}).encode()))
        if self._left <= 0 or self.complete:
            self._done.set_result(None)


async def catch_up(port: int, name: str, last: int, cut_after: int, rng: random.Random) -> dict[str, object]:
    """Come and go until everything is there."""
    device = Device(port, name, last)
    visits = 0
    began = time.monotonic()
    while not device.complete:
        visits += 1
        await device.visit(rng.randint(1, 2 * cut_after))
    return {"ids": device.ids, "cuts": visits - 1, "seconds": time.monotonic() - began}


def main() -> None:
    """Do what the command line says."""
    port, device, last, cut_after, seed = sys.argv[1:]
    rng = random.Random(int(seed))
    print(json.dumps(asyncio.run(catch_up(int(port), device, int(last), int(cut_after), rng))))


if __name__ == "__main__":
    main()
