"""The most that a system holds meanwhile."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.systems import Running

INTERVAL = 0.05
"""Seconds."""


class Watch:
    """Looks at a system's memory again and again."""

    def __init__(self, up: Running) -> None:
        self._up = up
        self._over = threading.Event()
        self.before = up.memory()
        self.highest = self.before

    def run(self) -> None:
        """Look until it is over."""
        while not self._over.wait(INTERVAL):
            self.highest = max(self.highest, self._up.memory())

    def end(self) -> None:
        """Look no more."""
        self._over.set()


@contextmanager
def watched(up: Running) -> Iterator[Watch]:
    """Watch for as long as this lasts."""
    watch = Watch(up)
    thread = threading.Thread(target=watch.run)
    thread.start()
    try:
        yield watch
    finally:
        watch.end()
        thread.join()
