"""A process that uses a local server: tells its address, holds it until its input ends, then leaves.

At SIGINT it goes on holding, as a server does that still drains its connections.
"""

import os
import signal
import sys
from pathlib import Path

from app.embedded import EmbeddedError, LocalServer


def tell(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> None:
    signal.signal(signal.SIGINT, lambda *_: tell("interrupted"))
    try:
        server = LocalServer.open(Path(sys.argv[1]))
    except EmbeddedError as error:
        tell(f"error: {error}")
        return
    if "--fork" in sys.argv:
        child = os.fork()
        if child == 0:
            return
        os.waitpid(child, 0)
    tell(server.url)
    sys.stdin.read()
    if "--forget" not in sys.argv:
        server.close()


main()
