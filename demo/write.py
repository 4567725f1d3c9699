"""`python -m demo.write`: write a row, as the main API would, while the demo is up."""

import asyncio
import random
import sys

from app.embedded import EmbeddedError, LocalServer
from demo.host import Host, Write, chat_message, journal_entry, mood
from demo.options import DemoError, parser
from demo.server import require_up


def _what(kind: str, user: str) -> Write:
    match kind:
        case "chat":
            return chat_message(user, "Good morning")
        case "journal":
            return journal_entry(user)
        case _:
            return mood(user, random.randint(1, 10))  # noqa: S311 - a mood, not a secret


async def _write(url: str, kind: str, user: str, count: int) -> None:
    async with Host.connect(url) as host:
        await host.add_users([user])
        for _ in range(count):
            write = _what(kind, user)
            await host.write(write)
            print(write, flush=True)


def main() -> int:
    """Write as the command line says; returns the exit status."""
    options = parser("demo.write", "Write rows with plain SQL; who watches gets them.")
    options.add_argument("--user", default="ada", help="whose row it is (default: ada)")
    options.add_argument("--kind", choices=("mood", "chat", "journal"), default="mood")
    options.add_argument("--count", type=int, default=1, help="how many rows (default: 1)")
    chosen = options.parse_args()
    try:
        require_up(chosen.port)
        with LocalServer.open(chosen.folder) as database:
            asyncio.run(_write(database.url, chosen.kind, chosen.user, chosen.count))
    except KeyboardInterrupt:
        return 130
    except (DemoError, EmbeddedError) as error:
        print(f"demo.write: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
