"""How a host tells systems that have no trigger of a row, after its commit; each waits to be acknowledged."""

from collections.abc import Awaitable, Callable

Publish = Callable[[str, int], Awaitable[None]]
"""Tell a user of a score."""
