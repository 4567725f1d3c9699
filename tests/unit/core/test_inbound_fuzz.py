"""A hundred thousand messages that nobody thought of: each is understood or told off, and nothing else happens."""

import json
import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest

from app.core import inbound
from app.core.actions import Action, Answer, Authenticate, Close, Complain, Confirmed, Refused, Send
from app.core.close_codes import CloseCode
from app.core.flight import Limits, Pace
from app.core.inbound import Ack, Auth, Inbound, Nack, Ping, Rejected, parse
from app.core.messages import Message
from app.core.position import Incarnation, Pass
from app.core.session import Phase, Session
from app.core.snapshot import Snapshot
from tests.support.fuzz.words import SECRET_PART, Words

SEEDS = range(10)
MESSAGES = 10_000
"""For each seed."""
LONGEST = 1.0
"""Seconds for one message; the longest takes some milliseconds."""
CODES = {"malformed", "unknown_type", "bad_ack"}
HERE = Incarnation(1, "00" * 8)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("seed", SEEDS)
def test_whatever_comes_is_understood_or_told_off(seed: int) -> None:
    """In bounded time, by one of the stated errors, which has nothing of the message in it."""
    words = Words(seed)
    seen: Counter[str] = Counter()
    errors = set()
    for _ in range(MESSAGES):
        text = words.message()
        before = time.perf_counter()
        said = parse(text)
        assert time.perf_counter() - before < LONGEST, text
        check(text, said)
        seen[type(said).__name__] += 1
        if isinstance(said, Rejected):
            errors.add(said)

    assert set(seen) == {"Ping", "Ack", "Nack", "Auth", "Rejected"}
    assert min(seen.values()) > MESSAGES / 100, "the supply is too poor"
    assert {error.code for error in errors} == CODES
    assert len(errors) == len(CODES), "an error says more of a message than its code"


def check(text: str, said: Inbound) -> None:
    """What was understood is what any other reader of JSON would find there."""
    match said:
        case Rejected(code, message):
            assert code in CODES
            assert SECRET_PART not in message
        case Ping():
            assert text in {"ping", "heartbeat"} or read(text)["type"] in {"ping", "heartbeat"}, text
        case Ack(number):
            assert (read(text)["type"], read(text)["seq"]) == ("ack", number)
            assert type(number) is int
        case Nack(number, reason):
            assert (read(text)["type"], read(text)["seq"]) == ("nack", number)
            assert type(number) is int
            assert is_storable(reason), text
        case Auth(token):
            assert read(text)["type"] == "auth"
            assert token in (read(text).get("token"), "")
            assert SECRET_PART not in repr(said)


def read(text: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(text)
    return read


def is_storable(text: str | None) -> bool:
    """Whether PostgreSQL takes it."""
    try:
        return text is None or "\0" not in text.encode().decode()
    except UnicodeEncodeError:
        return False


@pytest.mark.parametrize("acks", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_session_does_for_whatever_comes_no_more_than_it_may(seed: int, acks: bool) -> None:
    """It answers, complains, settles what it sent, once, and ends the connection at the 21st bad message."""
    words = Words(seed)
    seen: Counter[str] = Counter()
    for run in range(MESSAGES // 250):
        pause = 0.02 if run % 4 == 0 else 3.5  # seconds; bad messages that come slowly are borne
        session = serving(acks=acks)
        settled: list[int] = []
        complaints = 0
        for step in range(250):
            text = words.message()
            actions = session.receive(text, step * pause)
            seen.update(type(action).__name__ for action in actions)
            settled += settles(actions)
            complaints += sum(isinstance(action, Complain) for action in actions)
            check_actions(actions, text, acks=acks)
            if session.phase is Phase.CLOSED:
                assert complaints == inbound.Guard.PATIENCE + 1
                break
            if step % 10 == 0:
                session.route(rows(step), passing(step), step * pause)
            assert session.deadline() > 0
        assert len(settled) == len(set(settled)), "a row was settled twice"
        assert session.in_flight <= 25

    assert seen["Close"], "nobody lost patience"
    assert seen["Answer"]
    assert not acks or (seen["Confirmed"] and seen["Refused"])


def check_actions(actions: list[Action], text: str, *, acks: bool) -> None:
    """What a message of a client may make a session do."""
    for action in actions:
        match action:
            case Answer() | Complain():
                assert SECRET_PART not in str(action), text
            case Close(code, reason):
                assert (code, SECRET_PART in reason) == (CloseCode.BAD_REQUEST, False)
            case Confirmed() | Refused() | Send():
                assert acks, text
            case _:
                assert not isinstance(action, Authenticate), "nobody is asked for a token here"


def settles(actions: list[Action]) -> list[int]:
    """Ids of the rows that these actions settle."""
    confirmed = [row_id for action in actions if isinstance(action, Confirmed) for row_id, _ in action.events]
    return confirmed + [action.message.id for action in actions if isinstance(action, Refused)]


def serving(*, acks: bool) -> Session:
    """A session that is live and has sent three events."""
    session = Session(Limits(), Pace(), acks=acks)
    session.open(0.0)
    session.begin_read(passing(0))
    session.page([], more=False, now=0.0)
    session.route(rows(-3) + rows(-2) + rows(-1), passing(1), 0.0)
    return session


def passing(step: int) -> Pass:
    return Pass(Snapshot(50 + step), NOON, Snapshot(51 + step), NOON, HERE)


def rows(step: int) -> list[Message]:
    return [Message(step + 10, 50 + max(step, 0), b"{}", 0)]
