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
        ('{"type":"ack"}', "bad_ack"),
        ('{"type":"ack","seq":"1"}', "bad_ack"),
        ('{"type":"ack","seq":1.0}', "bad_ack"),
        ('{"type":"ack","seq":true}', "bad_ack"),
        ('{"type":"nack","seq":null}', "bad_ack"),
        ('{"type":"nack","seq":1,"reason":7}', "bad_ack"),
    ],
)
def test_each_kind_of_rubbish_has_its_error(text: str, code: str) -> None:
    """The code says what kind of mistake it was."""
    problem = inbound.parse(text)
    assert isinstance(problem, inbound.Rejected)
    assert problem.code == code


def test_acks_and_nacks_are_understood() -> None:
    """With the number they are about, and the reason of a nack where there is one."""
    assert inbound.parse('{"type":"ack","seq":7}') == inbound.Ack(7)
    assert inbound.parse('{"type":"nack","seq":7}') == inbound.Nack(7, None)
    assert inbound.parse('{"type":"nack","seq":7,"reason":"no key"}') == inbound.Nack(7, "no key")


def test_a_token_is_understood_and_shown_to_nobody() -> None:
    """What is no text counts as none; the token is not in what a traceback would show."""
    assert inbound.parse('{"type":"auth","token":"x.y.z"}') == inbound.Auth("x.y.z")
    assert inbound.parse('{"type":"auth","token":7}') == inbound.Auth("")
    assert inbound.parse('{"type":"auth"}') == inbound.Auth("")
    assert "x.y.z" not in repr(inbound.Auth("x.y.z"))


@settings(max_examples=300, deadline=None)
@given(st.text() | st.recursive(st.none() | st.booleans() | st.text(), st.lists).map(str))
def test_no_text_makes_it_raise(text: str) -> None:
    """Whatever a client sends, the answer is a value."""
    assert isinstance(inbound.parse(text), inbound.Inbound)
