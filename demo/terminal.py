"""How the demo is printed: plain ASCII, with bold and dim where the terminal has them."""

import os
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager

LABEL_WIDTH = 46


class Terminal:
    """Prints to standard output, at once; `colours` is for terminals that understand them."""

    def __init__(self, *, colours: bool | None = None) -> None:
        self._colours = _has_colours() if colours is None else colours

    def heading(self, text: str) -> None:
        """Begin a part."""
        self.line(f"\n{self._styled(text, '1')}")

    def line(self, text: str = "") -> None:
        """Print one line."""
        print(text, flush=True)

    def step(self, text: str) -> None:
        """Print what is said or done, which may be several lines."""
        self.line(textwrap.indent(text, "  "))

    def aside(self, text: str) -> None:
        """Print one line that is less important."""
        self.line(f"  {self._styled(text, '2')}")

    def result(self, text: str) -> None:
        """Print what a step led to."""
        self.line(f"    -> {self._styled(text, '32')}")

    @contextmanager
    def timed(self, label: str) -> Iterator[None]:
        """Print what is being done, and the seconds it took."""
        print(f"  {label} ".ljust(LABEL_WIDTH, "."), end=" ", flush=True)
        started = time.perf_counter()
        try:
            yield
        except BaseException:
            print(flush=True)
            raise
        print(f"{time.perf_counter() - started:.1f} s", flush=True)

    def _styled(self, text: str, style: str) -> str:
        return f"\x1b[{style}m{text}\x1b[0m" if self._colours else text


def _has_colours() -> bool:
    return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM", "dumb") != "dumb"
