"""What a client may say, and the error for anything else."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.core import inbound


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", "malformed"),
        ("Ping", "malformed"),
        ("[1]", "malformed"),
        ('"ping"', "malformed"),
        ("{}", "malformed"),
        ('{"type":7}', "malformed"),
        ("[" * 100_000, "malformed"),
        ("9" * 10_000, "malformed"),
        ('{"type":"subscribe"}', "unknown_type"),
        ('{"type":"ack","seq":1}', "bad_ack"),
        ('{"type":"nack","seq":1}', "bad_ack"),
        ('{"type":"auth","token":"x"}', "unauthorized"),
    ],
)
def test_each_kind_of_rubbish_has_its_error(text: str, code: str) -> None:
    """The code says what kind of mistake it was."""
    problem = inbound.parse(text)
    assert isinstance(problem, inbound.Rejected)
    assert problem.code == code


@settings(max_examples=2000, deadline=None)
@given(st.text() | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(str))
def test_no_text_makes_it_raise(text: str) -> None:
    """Whatever a client sends, the answer is a value."""
    assert isinstance(inbound.parse(text), inbound.Ping | inbound.Rejected)
