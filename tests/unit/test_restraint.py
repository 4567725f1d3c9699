"""A reader of very many rows leaves time to everybody else."""

import pytest

from app.outbox.restraint import LONGEST_PAUSE, PAGES_AT_ONCE, Restraint


def pauses(took: list[float]) -> list[float]:
    """The pause before each of these pages, which take so long to be read and sent."""
    restraint, now = Restraint(), 0.0
    told = []
    for one in took:
        told.append(restraint.pause(now))
        now += told[-1] + one
    return told


def test_a_short_read_waits_for_nothing() -> None:
    """Most who come back have missed less than a few pages."""
    assert pauses([1.0] * PAGES_AT_ONCE) == [0.0] * PAGES_AT_ONCE


def test_a_long_read_pauses_for_as_long_as_each_page_took() -> None:
    """Its own pauses are not counted, and a slow client's reader has waited enough."""
    took = [0.01] * PAGES_AT_ONCE + [0.03, 0.02, 10.0, 0.0]
    assert pauses(took)[PAGES_AT_ONCE:] == pytest.approx([0.01, 0.03, 0.02, LONGEST_PAUSE])
