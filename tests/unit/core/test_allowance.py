"""How often each key may come, told the time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.allowance import Allowance


def test_so_many_at_once_and_then_as_they_come_back() -> None:
    """Five of five pass; the next has to wait for a fifth of the period, and is not counted before."""
    allowance = Allowance(5, 60.0)
    at_once = [allowance.take("a", 1000.0) for _ in range(5)]
    early = [allowance.take("a", 1000.0), allowance.take("a", 1011.0)]

    assert at_once == [0.0] * 5
    assert early == pytest.approx([12.0, 1.0])
    assert allowance.take("a", 1012.0) == 0.0
    assert allowance.take("a", 1012.0) == pytest.approx(12.0)


def test_who_only_asks_is_not_counted() -> None:
    """How long to wait is the same whoever asks how often."""
    allowance = Allowance(1, 60.0)

    assert [allowance.wait("a", 0.0) for _ in range(3)] == [0.0] * 3
    assert (allowance.take("a", 0.0), allowance.wait("a", 15.0), len(allowance)) == (0.0, 45.0, 1)


def test_one_does_not_use_up_what_is_another_s() -> None:
    """Keys do not know each other."""
    allowance = Allowance(1, 60.0)

    assert [allowance.take(key, 0.0) for key in "aba"] == [0.0, 0.0, 60.0]


def test_whoever_waits_as_told_is_let_through() -> None:
    """The answer is a promise, also after many sums of floats."""
    allowance, now = Allowance(7, 60.0), 12_345.678
    for _ in range(1000):
        wait = allowance.take("a", now)
        now += wait
        assert not wait or allowance.take("a", now) == 0.0


@given(
    st.integers(1, 20),
    st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 30)), max_size=100),
)
def test_no_span_of_a_period_ever_lets_more_than_twice_as_many_through(
    most: int, comings: list[tuple[str, float]]
) -> None:
    """A full bucket and what flows into it meanwhile."""
    allowance, now = Allowance(most, 60.0), 0.0
    passed: dict[str, list[float]] = {key: [] for key in "abc"}
    for key, later in comings:
        now += later
        if not allowance.take(key, now):
            passed[key].append(now)

    for times in passed.values():
        for begin in times:
            assert sum(begin <= each < begin + 60.0 for each in times) <= 2 * most


def test_what_is_remembered_is_bounded() -> None:
    """A million strangers cost what the bound allows, and are forgotten when others come later."""
    allowance = Allowance(10, 60.0, keys=1000)
    for number in range(5000):
        assert allowance.take(str(number), 0.0) == 0.0
    crowded = len(allowance)
    for number in range(1000):
        allowance.take(f"later {number}", 100.0)

    assert crowded == 1000
    assert len(allowance) == 1000
    for number in range(1000):
        allowance.take("last", 300.0 + number * 6)
    assert len(allowance) == 1
