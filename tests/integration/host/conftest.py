"""A host in the test's own loop."""

import logging
from collections.abc import AsyncIterator, Iterator

import pytest

from .hosted import Hosted, hosted


@pytest.fixture
async def host() -> AsyncIterator[Hosted]:
    """A server with the host installed, on its defaults."""
    async with hosted() as running:
        yield running


@pytest.fixture
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Fail when anything at or above a warning, or with a traceback, was logged."""
    with caplog.at_level(logging.INFO):
        yield
    loud = [each for each in caplog.records if each.exc_info or each.levelno >= logging.WARNING]
    assert [each.getMessage() for each in loud] == []
