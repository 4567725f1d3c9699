"""A reader of very many rows leaves time to everybody else."""

import pytest

from app.outbox.restraint import Restraint


def test_a_reader_rests_for_most_of_the_time() -> None:
    """A database that is slow, or busy, is left alone for longer."""
    restraint = Restraint()
    assert restraint.rest(0.002) > 3 * 0.002
    assert restraint.rest(0.004) == pytest.approx(2 * restraint.rest(0.002))


def test_no_client_waits_for_ever() -> None:
    """However long a part took."""
    assert Restraint().rest(60.0) < 1
