"""The checker on histories made by hand: an honest one passes, and each lie is found by its rule alone."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.checker import MIB, Bounds, check
from tests.faults.history import (
    Copy,
    Fault,
    History,
    HostError,
    Left,
    Letter,
    Outcome,
    Reader,
    Row,
    Transaction,
)

BOUNDS = Bounds(window=2, stale_after=100.0)


def committed(number: int, at: float) -> Transaction:
    """A transaction that began, was committed, and was heard to be, within three seconds."""
    return Transaction(number, at, Outcome.COMMITTED, at + 1, at + 2)


def copy(row: Row, connection: int, at: float) -> Copy:
    """Of one row; Bob's have other ids than Ada's."""
    return Copy(row.key, row.user, row.key + 100 * (row.user == "bob"), connection, at)


def honest() -> History:
    """Ada has a phone and a tablet, Bob two windows of a browser; ten rows each, one was rolled back."""
    history = History()
    for key in range(1, 11):
        transaction = committed(key, 10.0 * key)
        for user in ("ada", "bob"):
            history.rows.append(Row(key, user, transaction, transaction.began))
    history.rows.append(Row(11, "ada", Transaction(11, 110.0, Outcome.NEVER), 110.0))
    history.rows.append(Row(12, "ada", committed(12, 120.0), 120.0, sync=True))
    phone, tablet = Reader("phone", "ada"), Reader("tablet", "ada", resumes=True)
    windows = [Reader(f"window {n}", "bob", device=False, takes_sync=False) for n in (1, 2)]
    history.readers += [phone, tablet, *windows]
    for row in history.rows:
        if row.transaction.outcome is Outcome.COMMITTED:
            readers = (phone, tablet) if row.user == "ada" else windows[row.key % 2 : row.key % 2 + 1]
            for reader in readers:
                reader.copies.append(copy(row, 1, row.began + 1.5))
    history.memory["one"] = [100 * MIB, 150 * MIB]
    return history


def test_an_honest_history_has_no_findings() -> None:
    """What one window of Bob's got need not come to the other."""
    assert check(honest(), BOUNDS) == []


def phone(history: History) -> Reader:
    return history.readers[0]


def forget(history: History) -> None:
    del phone(history).copies[3]


def forget_in_both_windows(history: History) -> None:
    for window in history.readers[2:]:
        window.copies = [one for one in window.copies if one.key != 4]


def invent(history: History) -> None:
    phone(history).copies.append(Copy(77, "ada", 77, 1, 500.0))


def deliver_what_was_rolled_back(history: History) -> None:
    phone(history).copies.append(Copy(11, "ada", 11, 1, 500.0))


def deliver_before_the_commit(history: History) -> None:
    phone(history).copies[0] = Copy(1, "ada", 1, 1, 10.5)


def deliver_to_another(history: History) -> None:
    history.readers[2].copies.append(Copy(10, "ada", 10, 1, 500.0))


def swap(history: History) -> None:
    copies = phone(history).copies
    copies[3], copies[4] = copies[4], copies[3]


def swap_within_one_transaction(history: History) -> None:
    rows = [row for row in history.rows if row.user == "ada" and row.key in (4, 5)]
    for row in rows:
        history.rows[history.rows.index(row)] = Row(row.key, "ada", committed(4, 40.0), 40.0)
    swap(history)


def come_late(history: History, *, connection: int, had_at: float) -> None:
    """Bob's first window gets row 5, which is the second's, after row 8; the second had it at some time."""
    first, second = history.readers[2:]
    second.copies = [replace(one, at=had_at) if one.key == 5 else one for one in second.copies]
    row = next(row for row in history.rows if (row.user, row.key) == ("bob", 5))
    first.copies.append(copy(row, connection, 120.0))


def come_late_on_one_connection(history: History) -> None:
    come_late(history, connection=1, had_at=51.5)


def come_late_though_nobody_had_it(history: History) -> None:
    come_late(history, connection=2, had_at=130.0)


def come_late_to_one_that_resumed(history: History) -> None:
    history.readers[2].resumes = True
    come_late(history, connection=2, had_at=51.5)


def come_late_after_a_restart(history: History) -> None:
    come_late(history, connection=1, had_at=51.5)
    history.faults.append(Fault("crash", 60.0, 61.0, restart=True))


def come_late_after_a_restart_to_one_that_would_hear(history: History) -> None:
    history.readers[2].hears_again = True
    come_late_after_a_restart(history)


def repeat_on_one_connection(history: History) -> None:
    phone(history).copies.append(Copy(3, "ada", 3, 1, 90.0))


def repeat_to_one_that_resumed(history: History) -> None:
    tablet = history.readers[1]
    tablet.cuts = 1
    tablet.copies.append(Copy(3, "ada", 3, 2, 90.0))


def repeat_more_than_a_window(history: History) -> None:
    phone(history).cuts = 1
    phone(history).copies += [Copy(key, "ada", key, 2, 120.0) for key in (3, 4, 5)]


def reuse_an_id(history: History) -> None:
    phone(history).copies[2] = Copy(3, "ada", 4, 1, 31.5)


def leave_something(history: History) -> None:
    history.left = Left(undelivered=1)


def grow(history: History) -> None:
    history.memory["one"].append(300 * MIB)


def fail_the_host(history: History) -> None:
    history.host_errors.append(HostError(49.0, 50.0, "53400", "no more of it"))


def deadlock_the_host(history: History) -> None:
    history.faults.append(Fault("kill", 49.0, 51.0, database=True))
    history.host_errors.append(HostError(49.0, 50.0, "40P01", "deadlock detected"))


@pytest.mark.parametrize(
    ("lie", "promise"),
    [
        (forget, "P2 loss"),
        (forget_in_both_windows, "P2 loss"),
        (invent, "P1 phantom"),
        (deliver_what_was_rolled_back, "P1 phantom"),
        (deliver_before_the_commit, "P1 phantom"),
        (deliver_to_another, "P4 leak"),
        (swap, "P3 order"),
        (swap_within_one_transaction, "P3 order"),
        (come_late_on_one_connection, "P3 order"),
        (come_late_though_nobody_had_it, "P3 order"),
        (come_late_to_one_that_resumed, "P3 order"),
        (come_late_after_a_restart_to_one_that_would_hear, "P3 order"),
        (repeat_on_one_connection, "P5 twice"),
        (repeat_to_one_that_resumed, "P5 twice"),
        (repeat_more_than_a_window, "P5 window"),
        (reuse_an_id, "P5 identity"),
        (leave_something, "P2 drain"),
        (grow, "P7 memory"),
        (fail_the_host, "P8 host"),
        (deadlock_the_host, "P8 host"),
    ],
    ids=lambda one: one.__name__ if callable(one) else "",
)
def test_a_lie_is_found(lie: Callable[[History], None], promise: str) -> None:
    """By the rule of the promise that it breaks, and by no other."""
    history = honest()
    lie(history)

    assert {finding.promise for finding in check(history, BOUNDS)} == {promise}


def excuse_by_another_that_had_it(history: History) -> None:
    """The connection before passed over it, and the next one's process did not know that."""
    come_late(history, connection=2, had_at=51.5)


def excuse_by_a_letter(history: History) -> None:
    forget(history)
    history.letters.append(Letter("ada", 4, "phone"))


def excuse_by_a_restart(history: History) -> None:
    repeat_on_one_connection(history)
    history.faults.append(Fault("crash", 60.0, 61.0, restart=True))


def excuse_by_a_redelivery(history: History) -> None:
    phone(history).copies.append(Copy(3, "ada", 3, 1, 90.0, redelivered=True))


def excuse_by_a_cut(history: History) -> None:
    phone(history).cuts = 1
    phone(history).copies += [Copy(key, "ada", key, 2, 120.0) for key in (3, 4)]


def excuse_by_an_attack(history: History) -> None:
    history.faults.append(Fault("kill", 40.0, 45.0, database=True))
    fail_the_host(history)


def excuse_by_a_loss_of_the_database(history: History) -> None:
    """What is gone is owed to nobody, may have come, and leaves its id to another."""
    [row] = [row for row in history.rows if (row.user, row.key) == ("ada", 4)]
    lost = Transaction(40, 40.0, Outcome.LOST, 41.0, 42.0)
    history.rows.append(Row(40, "ada", lost, 40.0))
    history.rows.append(Row(41, "ada", lost, 40.0))
    phone(history).copies.insert(3, Copy(40, "ada", row.key, 1, 41.2))


def excuse_what_nobody_heard(history: History) -> None:
    """A COMMIT that was not answered says nothing of what came when."""
    rows = [row for row in history.rows if row.key == 4]
    rows[0].transaction.committed = float("inf")
    swap(history)


@pytest.mark.parametrize(
    "excuse",
    [
        come_late_after_a_restart,
        excuse_by_another_that_had_it,
        excuse_by_a_letter,
        excuse_by_a_restart,
        excuse_by_a_redelivery,
        excuse_by_a_cut,
        excuse_by_an_attack,
        excuse_by_a_loss_of_the_database,
        excuse_what_nobody_heard,
    ],
    ids=lambda one: one.__name__,
)
def test_what_the_promises_allow_is_no_finding(excuse: Callable[[History], None]) -> None:
    """Dead letters, gaps that were told, and duplicates after what explains them."""
    history = honest()
    excuse(history)

    assert check(history, BOUNDS) == []


def test_who_was_told_of_a_gap_need_not_have_what_retention_removed() -> None:
    """And who cannot be told need not have it when another of that user does."""
    history = honest()
    tablet = history.readers[1]
    del phone(history).copies[3]
    del tablet.copies[4]
    retention = Bounds(window=2, stale_after=100.0, retention=True)
    found = {finding.text.partition(" ")[0] for finding in check(history, retention)}
    tablet.told.append(70.0)

    assert found == {"tablet"}
    assert check(history, retention) == []
    assert {finding.text.partition(" ")[0] for finding in check(history, BOUNDS)} == {"phone", "tablet"}
