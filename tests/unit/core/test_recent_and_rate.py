"""What was routed lately, and how busy the process is."""

from datetime import UTC, datetime, timedelta

from app.core.rate import Load
from app.core.recent import Recent

START = datetime(2026, 1, 1, tzinfo=UTC)


def test_recent_rows_are_told_by_id_and_time() -> None:
    """An id that a crash handed out again is another row."""
    recent = Recent(10)
    recent.remember(5, START)
    assert (5, START.timestamp()) in recent.since(START)
    assert (5, (START + timedelta(seconds=1)).timestamp()) not in recent.since(START)


def test_only_rows_of_the_overlap_are_told() -> None:
    """What is older is not read again, so it need not be known."""
    recent = Recent(10)
    recent.remember(1, START)
    recent.remember(2, START + timedelta(minutes=6))
    assert {row_id for row_id, _ in recent.since(START + timedelta(minutes=5))} == {2}


def test_the_memory_is_bounded_and_forgets_the_oldest() -> None:
    """Beyond its size it costs duplicates, not memory."""
    recent = Recent(3)
    for row_id in range(1, 6):
        recent.remember(row_id, START)
    assert {row_id for row_id, _ in recent.since(START)} == {3, 4, 5}


def test_a_process_gets_busy_above_and_calm_below() -> None:
    """Between the two thresholds it stays what it was."""
    load = Load(busy_above=1000, busy_below=500)
    now = 0.0

    def run(per_second: int) -> bool:
        nonlocal now
        for _ in range(200):
            now += 0.01
            load.observe(per_second // 100, now)
        return load.busy

    assert not run(700)
    assert run(2000)
    assert run(700)
    assert not run(300)
