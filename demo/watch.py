"""`python -m demo.watch`: watch as a client while the demo is up."""

import asyncio
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from demo.client import address
from demo.options import DemoError, parser


async def _watch(port: int, user: str) -> None:
    try:
        async with connect(address(port, user)) as socket:
            print(f"watching as {user}; Ctrl-C ends it", flush=True)
            try:
                while True:
                    print(await socket.recv(), flush=True)
            except ConnectionClosed as closed:
                code = closed.rcvd.code if closed.rcvd else 1006
                raise DemoError(f"the server closed the connection ({code})") from closed
    except (OSError, WebSocketException) as error:
        raise DemoError(
            f"no service answers on port {port}: start the demo with `make demo` and leave it open"
        ) from error


def main() -> int:
    """Watch as the command line says; returns the exit status."""
    options = parser("demo.watch", "Print every message that comes for a user.")
    options.add_argument("--user", default="ada", help="whose messages (default: ada)")
    chosen = options.parse_args()
    try:
        asyncio.run(_watch(chosen.port, chosen.user))
    except KeyboardInterrupt:
        return 130
    except DemoError as error:
        print(f"demo.watch: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
