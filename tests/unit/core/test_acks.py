"""A client that acknowledges: what its acks and nacks settle, and what happens when none come."""

from itertools import pairwise

import pytest

from app.core import inbound
from app.core.actions import Action, Close, Complain, Confirmed, Refused, Send, SendPing
from app.core.close_codes import CloseCode
from app.core.flight import Limits, Pace
from app.core.session import Session
from tests.unit.core.test_session import a_pass, live, rows

LIMITS = Limits(window=4, heartbeat_interval=20, takes_nothing_after=60, ack_timeout=60)


def connected(limits: Limits = LIMITS, sent: int = 0, **options: object) -> Session:
    """A session that is live, with so many rows sent: ids and numbers from 1 on."""
    session = live(limits, acks=True, device_id=9, **options)
    if sent:
        session.route(rows(*range(1, sent + 1), xid=50), a_pass(50, 51), 0.0)
    return session


def ack(session: Session, number: int, now: float = 0.0) -> list[Action]:
    return session.receive(f'{{"type":"ack","seq":{number}}}', now)


def nack(session: Session, number: int, now: float = 0.0) -> list[Action]:
    return session.receive(f'{{"type":"nack","seq":{number},"reason":"r"}}', now)


def sent(actions: list[Action]) -> list[tuple[int, int | None, bool]]:
    return [(one.message.id, one.number, one.again) for one in actions if isinstance(one, Send)]


def confirmed(actions: list[Action]) -> tuple[int, ...]:
    return tuple(row_id for one in actions if isinstance(one, Confirmed) for row_id, _ in one.events)


def place(actions: list[Action]) -> int | None:
    """The id up to which the device has everything by the last of these."""
    places = [one.position.after_id for one in actions if isinstance(one, Confirmed) and one.position]
    return places[-1] if places else None


def test_every_message_has_the_next_number() -> None:
    """From one on, without a gap."""
    session = connected()
    actions = session.route(rows(10, 20, 30, xid=50), a_pass(50, 51), 0.0)
    assert sent(actions) == [(10, 1, False), (20, 2, False), (30, 3, False)]


def test_an_ack_settles_everything_up_to_it_and_makes_room() -> None:
    """The window is counted in what is not acknowledged; nothing beyond it is sent."""
    session = connected(sent=6)
    assert session.in_flight == 4
    actions = ack(session, 2)
    assert confirmed(actions) == (1, 2)
    assert place(actions) == 2
    assert sent(actions) == [(5, 5, False), (6, 6, False)]


def test_the_window_is_bounded_in_bytes() -> None:
    """A single message may be larger."""
    session = live(Limits(window_bytes=100), acks=True)
    actions = session.route(rows(1, 2, 3, xid=50, size=90), a_pass(50, 51), 0.0)
    assert len(sent(actions)) == 2
    assert sent(ack(session, 1)) == [(3, 3, False)]
    assert session.in_flight == 2


@pytest.mark.parametrize("number", [0, -1, 5, 1])
def test_a_wrong_ack_is_told_and_marks_nothing(number: int) -> None:
    """Never sent, or behind what is acknowledged."""
    session = connected(sent=4)
    ack(session, 2)
    assert ack(session, number) == [Complain(inbound.BAD_ACK)]
    assert session.in_flight == 2


def test_an_ack_said_twice_is_nothing_new() -> None:
    """Neither a mistake nor a mark."""
    session = connected(sent=4)
    ack(session, 2)
    assert ack(session, 2) == []


@pytest.mark.parametrize("number", [0, 1, 2, 5])
def test_a_wrong_nack_is_told_and_refuses_nothing(number: int) -> None:
    """What is acknowledged or was never sent cannot be refused."""
    session = connected(sent=4)
    ack(session, 2)
    assert nack(session, number) == [Complain(inbound.BAD_ACK)]


def test_acks_of_a_client_that_did_not_ask_for_them_are_told() -> None:
    """It gets no numbers, so it has none to acknowledge."""
    session = live(LIMITS)
    assert sent(session.route(rows(1, xid=50), a_pass(50, 51), 0.0)) == [(1, None, False)]
    assert ack(session, 1) == [Complain(inbound.NO_ACK)]


def test_acks_that_settle_something_are_not_counted_as_talk() -> None:
    """A client may acknowledge every message, however fast they come; repeating itself counts."""
    session = connected(Limits(window=256, inbound_rate=5), sent=100)
    for number in range(1, 101):
        assert confirmed(ack(session, number)) == (number,)
    for _ in range(5):
        assert ack(session, 100) == []
    assert ack(session, 100) == [Complain(inbound.RATE_LIMITED)]


class TestNacks:
    def test_a_refused_message_is_passed_over_by_acks(self) -> None:
        """It is handed on before the position passes over it, and is not marked as received."""
        session = connected(sent=4)
        actions = nack(session, 2)
        assert [type(one) for one in actions] == [Refused]
        actions = ack(session, 3)
        assert confirmed(actions) == (1, 3)
        assert place(actions) == 3

    def test_the_rest_of_the_stream_goes_on(self) -> None:
        """A refusal of the oldest makes room, and lets the position pass."""
        session = connected(sent=6)
        actions = nack(session, 1)
        assert isinstance(actions[0], Refused)
        assert place(actions) == 1
        assert confirmed(actions) == ()
        assert sent(actions) == [(5, 5, False)]

    def test_a_message_refused_in_the_middle_waits_for_those_before_it(self) -> None:
        """The position does not pass over what is open."""
        session = connected(sent=4)
        assert place(nack(session, 3)) is None
        assert place(ack(session, 1)) == 1
        actions = ack(session, 2)
        assert place(actions) == 3
        assert session.in_flight == 1

    def test_it_comes_again_under_a_new_number(self) -> None:
        """Told as redelivered, with no place of its own; acking it settles what was to be sent again."""
        session = connected(sent=2)
        nack(session, 1)
        ack(session, 2)
        actions = session.redeliver(rows(1, xid=50)[0], 5.0)
        assert sent(actions) == [(1, 3, True)]
        actions = ack(session, 3)
        assert actions == [Confirmed(((1, 0),), (), None, redelivered=((1, 0),))]

    def test_it_can_be_refused_again(self) -> None:
        """As often as it is sent."""
        session = connected(sent=1)
        for number in (1, 2, 3):
            actions = nack(session, number)
            assert isinstance(actions[0], Refused)
            assert sent(session.redeliver(rows(1, xid=50)[0], 5.0)) == [(1, number + 1, True)]

    def test_acking_the_old_number_settles_it(self) -> None:
        """Though it lies behind; once."""
        session = connected(sent=2)
        nack(session, 1)
        ack(session, 2)
        session.redeliver(rows(1, xid=50)[0], 5.0)
        assert confirmed(ack(session, 1)) == (1,)
        assert session.in_flight == 0
        assert ack(session, 1) == [Complain(inbound.BAD_ACK)]

    @pytest.mark.parametrize("number", [1, 2, 3], ids=["the first", "the one before", "the last"])
    def test_acking_any_number_of_it_settles_it(self, number: int) -> None:
        """However often it was refused, and with nothing sent beside it."""
        session = connected(sent=1)
        for refused in (1, 2):
            nack(session, refused)
            session.redeliver(rows(1, xid=50)[0], 5.0 * refused)
        assert confirmed(ack(session, number)) == (1,)
        assert session.in_flight == 0

    def test_refusing_everything_costs_a_fixed_amount(self) -> None:
        """What a session remembers of refused messages is bounded by the window."""
        session = connected()
        for number in range(1, 1001):
            session.route(rows(number, xid=50), a_pass(50, 51), 0.0)
            nack(session, number)
        assert session.in_flight == 0
        acks = session.confirming
        assert acks is not None
        assert len(acks._refused) <= LIMITS.window
        assert len(acks._old_numbers) <= LIMITS.window


class TestPatience:
    def test_the_oldest_is_sent_again_thrice_and_then_it_ends(self) -> None:
        """Alone, once a minute without progress, each time under a new number; then 4408."""
        session = connected(sent=3)
        resent = []
        for now in range(1, 400):
            actions = session.tick(float(now))
            resent += [(now, *one) for one in sent(actions)]
            if any(isinstance(one, SendPing) for one in actions):
                session.pong(float(now))
            if any(isinstance(one, Close) for one in actions):
                assert actions == [Close(CloseCode.TOOK_NOTHING, actions[-1].reason)]  # type: ignore[union-attr]
                break
        assert resent == [(60, 1, 4, True), (120, 1, 5, True), (180, 1, 6, True)]
        assert now == 240

    def test_what_may_not_be_for_its_user_any_longer_is_not_sent_again(self) -> None:
        """Its user left a room: nothing that was sent before is; the patience is the same."""
        session = connected(sent=1)
        session.read_again(0.0)
        assert sent(session.route(rows(2, xid=50), a_pass(50, 51), 0.0)) == [(2, 2, False)]
        session.tick(20.0)
        session.pong(20.0)
        assert sent(session.tick(60.0)) == []
        assert confirmed(ack(session, 1, 61.0)) == (1,)
        session.pong(61.0)
        for now in (81.0, 101.0):
            session.tick(now)
            session.pong(now)
        assert sent(session.tick(121.0)) == [(2, 3, True)]

    def test_a_reader_at_one_message_a_second_is_never_accused(self) -> None:
        """However far the end of what waits for it lies; its pongs come late, since it reads slowly."""
        session = connected(Limits(window=256), sent=0)
        session.route(rows(*range(1, 257), xid=50), a_pass(50, 51), 0.0)
        for now in range(1, 257):
            assert confirmed(ack(session, now, float(now))) == (now,)
            for action in session.tick(now + 0.5):
                assert isinstance(action, SendPing)

    def test_acking_either_number_settles_what_was_sent_again(self) -> None:
        """The old one alone, the new one with everything before it."""
        for number, settled in ((1, (1,)), (4, (1, 2, 3))):
            session = connected(sent=3)
            session.tick(20.0)
            session.pong(20.0)
            session.tick(40.0)
            session.pong(40.0)
            assert sent(session.tick(60.0)) == [(1, 4, True)]
            actions = ack(session, number, 61.0)
            assert confirmed(actions) == settled
            assert place(actions) == settled[-1]
        assert session.in_flight == 0

    def test_a_peer_that_takes_nothing_at_all_is_closed_after_a_minute(self) -> None:
        """It answers no ping, so there is no use in sending again."""
        session = connected(sent=3)
        assert [type(one) for one in session.tick(20.0)] == [SendPing]
        ends = [
            now for now in range(21, 200) if any(isinstance(one, Close) for one in session.tick(float(now)))
        ]
        assert ends[0] == 80

    def test_an_idle_client_is_asked_whether_it_is_there(self) -> None:
        """And ends with 1011 when it is not."""
        session = connected()
        assert [type(one) for one in session.tick(20.0)] == [SendPing]
        assert [one.code for one in session.tick(40.0) if isinstance(one, Close)] == [
            CloseCode.INTERNAL_ERROR
        ]

    def test_progress_starts_the_patience_anew(self) -> None:
        """Deadlines follow the last ack that advanced."""
        session = connected(sent=3)
        deadlines = []
        for number, now in ((1, 30.0), (2, 50.0)):
            ack(session, number, now)
            deadlines.append(session.confirming._patience_ends())  # type: ignore[attr-defined]
        assert deadlines == [90.0, 110.0]
        assert all(a < b for a, b in pairwise(deadlines))


def test_settling_others_does_not_buy_the_oldest_more_time() -> None:
    """Only what moves the front is progress; so how often anything is sent again has a bound."""
    session = connected(sent=4)
    before = session.confirming._patience_ends()  # type: ignore[attr-defined]
    nack(session, 3, 30.0)
    assert session.confirming._patience_ends() == before  # type: ignore[attr-defined]
    nack(session, 1, 40.0)
    assert session.confirming._patience_ends() == 100.0  # type: ignore[attr-defined]


def test_the_oldest_unacked_is_known_when_it_ends() -> None:
    """It is what the attempt is counted for; what was refused does not stand in the way."""
    session = connected(sent=3)
    ack(session, 1)
    nack(session, 2)
    oldest = session.confirming.oldest_unacked
    assert oldest is not None
    assert oldest.id == 3
    ack(session, 3)
    assert session.confirming.oldest_unacked is None


def test_a_session_without_acks_has_no_oldest() -> None:
    """Its attempts are not counted."""
    session = Session(LIMITS, Pace())
    assert session.confirming.oldest_unacked is None
