"""What was routed lately, and how busy the process is."""

import pytest

from app.core.rate import AT_LEAST, MANY, Load
from app.core.recent import Recent

START = 1_767_225_600_000_000
MINUTE = 60_000_000


def test_recent_rows_are_told_by_id_and_time() -> None:
    """An id that a crash handed out again is another row."""
    recent = Recent(10)
    recent.remember(5, START)
    assert (5, START) in recent.since(START)
    assert (5, START + 1) not in recent.since(START)


def test_only_rows_of_the_overlap_are_told() -> None:
    """What is older is not read again, so it need not be known."""
    recent = Recent(10)
    recent.remember(1, START)
    recent.remember(2, START + 6 * MINUTE)
    assert {row_id for row_id, _ in recent.since(START + 5 * MINUTE)} == {2}


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    """Beyond its size it costs duplicates, not memory."""
    recent = Recent(3)
    for row_id in range(1, 6):
        recent.remember(row_id, START)
    assert {row_id for row_id, _ in recent.since(START)} == {3, 4, 5}


class Reading:
    """A process that reads a hundred times a second."""

    def __init__(self) -> None:
        self.load = Load(busy_above=0.7, busy_below=0.35)
        self.now = 0.0

    def run(self, per_second: float, took: float) -> bool:
        for _ in range(200):
            self.now += 0.01
            self.load.observe(per_second / 100, took, self.now)
        return self.load.busy


def test_a_process_gets_busy_above_and_calm_below() -> None:
    """Between the two thresholds it stays what it was."""
    reading = Reading()
    assert not reading.run(600, took=0.001)
    assert reading.run(800, took=0.001)
    assert reading.run(600, took=0.001)
    assert not reading.run(300, took=0.001)


def test_a_slow_machine_is_busy_with_fewer_rows() -> None:
    """But not with hardly any, however slow its database."""
    reading = Reading()
    assert reading.run(300, took=0.004)
    assert not reading.run(AT_LEAST / 2, took=1.0)


def test_a_busy_process_waits_the_longer_the_more_comes() -> None:
    """Rows that come one by one are not kept waiting for others; of very many, none waits longer."""
    reading = Reading()
    reading.run(MANY / 4, took=0.001)
    assert reading.load.pause(0.01) == pytest.approx(0.0025, rel=0.01)
    reading.run(5 * MANY, took=0.001)
    assert reading.load.pause(0.01) == 0.01


def test_a_busy_process_whose_reads_take_long_makes_fewer_of_them() -> None:
    """Each costs about as much for a hundred rows as for ten; but nobody waits for very long."""
    reading = Reading()
    reading.run(5 * MANY, took=0.008)
    assert 2 * 0.008 < reading.load.pause(0.01) < 0.05
    reading.run(5 * MANY, took=1.0)
    assert reading.load.pause(0.01) < 0.05
