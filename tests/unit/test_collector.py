"""What exists when the service lives is left out of collections."""

import gc

from app.bootstrap.collector import THRESHOLDS, spared


def test_what_there_is_is_left_alone_until_the_end() -> None:
    """Then everything is as it was."""
    before = gc.get_threshold()
    with spared():
        assert gc.get_freeze_count() > 1000
        assert gc.get_threshold() == THRESHOLDS
    assert gc.get_freeze_count() == 0
    assert gc.get_threshold() == before
