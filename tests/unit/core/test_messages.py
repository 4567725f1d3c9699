"""The bytes a client gets."""

import json
from datetime import UTC, datetime, timedelta, timezone

from hypothesis import example, given
from hypothesis import strategies as st

from app.core import messages
from app.core.moment import microseconds, moment

WHEN = datetime(2025, 12, 7, 13, 18, 47, 812_999, tzinfo=UTC)


def test_an_event_has_exactly_the_keys_of_the_contract() -> None:
    """`data` is the payload as PostgreSQL wrote it."""
    message = messages.event(42, 7, "mood_update", '{"mood_score": 7}', microseconds(WHEN))
    assert json.loads(message.body) == {
        "type": "mood_update",
        "id": 42,
        "data": {"mood_score": 7},
        "timestamp": "2025-12-07T13:18:47.812Z",
    }


def test_a_sync_row_names_its_action() -> None:
    """Its time stands in `data` as well."""
    message = messages.sync_row(45, 7, 'say "hi"', "[1]", microseconds(WHEN), 3)
    assert json.loads(message.body) == {
        "type": "sync",
        "id": 45,
        "data": {"action_type": 'say "hi"', "payload": [1], "created_at": "2025-12-07T13:18:47.812Z"},
        "timestamp": "2025-12-07T13:18:47.812Z",
    }
    assert message.is_sync
    assert message.origin == 3


def test_times_are_utc_with_milliseconds() -> None:
    """Whatever the zone, and with zeros where there is nothing to tell."""
    elsewhere = timezone(timedelta(hours=5, minutes=30))
    assert messages.timestamp(datetime(2026, 1, 1, 5, 30, tzinfo=elsewhere)) == "2026-01-01T00:00:00.000Z"


@given(st.datetimes(datetime(2, 1, 1), timezones=st.timezones()))  # noqa: DTZ001 - the zone is drawn
@example(datetime.max.replace(tzinfo=UTC))
@example(datetime(3000, 1, 1, 0, 0, 0, 999_999, tzinfo=UTC))
def test_times_are_cut_to_milliseconds_and_never_rounded_up(at: datetime) -> None:
    """As the standard library writes them, before the epoch too."""
    expected = at.astimezone(UTC).isoformat(timespec="milliseconds")
    assert messages.timestamp(at) == expected.removesuffix("+00:00") + "Z"
    assert moment(microseconds(at)) == at.astimezone(UTC)


def test_text_that_is_no_unicode_does_not_break_a_message() -> None:
    """A lone surrogate can come from a client's URL."""
    assert json.loads(messages.connected("a\ud800b", WHEN))["user_id"] == "a?b"
