"""The session's timers, bounds and answers, told the time."""

from datetime import UTC, datetime, timedelta

import pytest

from app.core import inbound
from app.core.actions import Answer, Close, Complain, Confirmed, NextPage, Send, SendPing, StartRead
from app.core.close_codes import CloseCode
from app.core.flight import Limits, Pace
from app.core.messages import Message
from app.core.moment import microseconds
from app.core.position import Incarnation, Pass, Position
from app.core.session import Phase, Session
from app.core.snapshot import Snapshot

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
HERE = Incarnation(1, "00" * 8)


def a_pass(seen: int, reading: int) -> Pass:
    return Pass(Snapshot(seen), NOON, Snapshot(reading), NOON, HERE)


def rows(*ids: int, xid: int = 50, size: int = 2) -> list[Message]:
    return [Message(row_id, xid, b"x" * size, 0) for row_id in ids]


def live(limits: Limits | None = None, pace: Pace | None = None, **options: object) -> Session:
    """A session that has read an empty table up to transaction 50 and is live."""
    session = Session(limits or Limits(), pace or Pace(), **options)  # type: ignore[arg-type]
    session.open(0.0)
    session.begin_read(a_pass(50, 50))
    session.page([], more=False, now=0.0)
    assert session.phase is Phase.LIVE
    return session


def kinds(actions: list[object]) -> list[str]:
    return [type(action).__name__ for action in actions]


class TestCatchingUp:
    def test_opens_with_a_read_of_what_is_undelivered(self) -> None:
        """Without a position, a session asks for what nobody got yet."""
        assert Session(Limits(), Pace()).open(0.0) == [StartRead(None, with_undelivered=True)]

    def test_asks_for_the_next_page_when_one_is_sent(self) -> None:
        """Pages are fetched one by one."""
        session = Session(Limits(), Pace())
        session.open(0.0)
        session.begin_read(a_pass(40, 50))

        actions = session.page(rows(1, 2), more=True, now=0.0)

        assert kinds(actions) == ["Send", "Send", "NextPage", "SendPing"]

    def test_waits_with_the_next_page_while_the_window_is_full(self) -> None:
        """A peer that confirms nothing is read nothing more for."""
        session = Session(Limits(window=4), Pace())
        session.open(0.0)
        session.begin_read(a_pass(40, 50))

        actions = session.page(rows(*range(1, 11)), more=True, now=0.0)

        assert kinds(actions) == ["Send"] * 4 + ["SendPing"]
        actions = session.pong(0.1)
        assert kinds(actions) == ["Confirmed"] + ["Send"] * 4 + ["SendPing"]

    @pytest.mark.parametrize("first", [True, False])
    def test_a_page_that_was_read_before_the_user_left_a_room_is_read_again(self, first: bool) -> None:
        """Some of it may not be for this user any longer."""
        session = Session(Limits(), Pace())
        session.open(0.0)
        session.begin_read(a_pass(40, 50))
        if not first:
            session.page(rows(1), more=True, now=0.0)

        session.read_again(0.1)
        again = session.page(rows(2), more=False, now=0.2)

        assert kinds(again) == ["StartRead"]
        session.begin_read(a_pass(40, 60))
        assert "Send" in kinds(session.page(rows(3), more=False, now=0.3))

    def test_rows_held_back_are_sent_once_and_only_if_the_read_had_not_them(self) -> None:
        """The read's snapshot says which rows it already has."""
        session = Session(Limits(), Pace())
        session.open(0.0)
        session.route(rows(7, xid=60) + rows(8, xid=70), a_pass(50, 71), 0.0)
        session.begin_read(a_pass(40, 65))

        actions = session.page(rows(7, xid=60), more=False, now=0.0)

        assert [action.message.id for action in actions if isinstance(action, Send)] == [7, 8]

    def test_what_a_restart_repeats_is_marked_though_only_the_reader_had_it(self) -> None:
        """The tail was behind when the database went, and did not know of what this read passed over."""
        session = live()
        behind = Position(Snapshot(20), NOON, HERE)
        again = Pass(Snapshot(10), NOON, Snapshot(90), NOON, Incarnation(1, "11" * 8), before=(behind,))
        then, later = microseconds(NOON), microseconds(NOON + timedelta(seconds=1))
        had = [Message(row_id, 40, b"{}", then) for row_id in (7, 9)]
        new = [Message(row_id, 40, b"{}", later) for row_id in (8, 10)]

        sent = [*session.route([had[0], new[0]], again, 0.0), *session.route([had[1], new[1]], again, 0.0)]

        marks = {one.message.id: one.message.redelivered for one in sent if isinstance(one, Send)}
        assert marks == {7: True, 8: False, 9: True, 10: False}

    def test_what_a_restart_kept_from_being_sent_is_not_marked(self) -> None:
        """The tail was cut between two pages of one pass: of that the reader had the first alone."""
        session = live()
        cut = a_pass(50, 71)
        then = microseconds(NOON)
        early, late = (Message(row_id, 60, b"{}", then) for row_id in (5, 700))
        session.route([early], cut, 0.0)
        again = Pass(Snapshot(10), NOON, Snapshot(90), NOON, Incarnation(1, "11" * 8), before=(cut.at(500),))

        sent = session.route([early, late], again, 0.0)

        marks = {one.message.id: one.message.redelivered for one in sent if isinstance(one, Send)}
        assert marks == {5: True, 700: False}

    def test_a_read_that_cannot_go_on_begins_again_from_what_was_sent(self) -> None:
        """After a restart in mid-read, the position is that of the last row sent."""
        session = Session(Limits(), Pace())
        session.open(0.0)
        session.begin_read(a_pass(40, 50))
        assert kinds(session.page(rows(1, 2), more=True, now=0.0))[-2:] == ["NextPage", "SendPing"]

        (action,) = session.interrupt(0.1)

        assert isinstance(action, StartRead)
        assert action.position == a_pass(40, 50).at(2)
        assert not action.with_undelivered


class TestLive:
    def test_sends_at_once(self) -> None:
        """A row that comes live goes out in the same call, and what asks for its confirmation with it."""
        assert kinds(live().route(rows(1), a_pass(50, 51), 0.0)) == ["Send", "SendPing"]

    def test_falls_back_to_the_table_when_the_queue_is_full(self) -> None:
        """What does not fit is dropped, and read from where the client was."""
        session = live(Limits(window=4, queue=3))
        session.route(rows(*range(1, 9)), a_pass(50, 51), 0.0)
        assert session.phase is Phase.CATCHING_UP
        assert session.waiting == 0

        actions = session.pong(0.1)

        assert kinds(actions) == ["Confirmed", "StartRead"]
        assert isinstance(actions[-1], StartRead)
        assert actions[-1].position == a_pass(50, 51).at(4)

    def test_the_queue_is_bounded_in_bytes_too(self) -> None:
        """A few large rows fill it like many small ones."""
        session = live(Limits(window=1, queue_bytes=100))
        session.route(rows(1, 2, 3, size=60), a_pass(50, 51), 0.0)
        assert session.phase is Phase.CATCHING_UP

    def test_sync_rows_go_only_to_mobile_devices_other_than_their_origin(self) -> None:
        """A browser gets none, and a phone not its own."""
        mine = Message(1, 50, b"{}", 0, is_sync=True, origin=7)
        others = Message(2, 50, b"{}", 0, is_sync=True, origin=8)
        anybodys = Message(3, 50, b"{}", 0, is_sync=True)

        def sent(session: Session) -> list[int]:
            actions = session.route([mine, others, anybodys], a_pass(50, 51), 0.0)
            return [action.message.id for action in actions if isinstance(action, Send)]

        def read(session: Session) -> list[int]:
            session.open(0.0)
            session.begin_read(a_pass(1, 50))
            return ids(session.page([mine, others, anybodys], more=False, now=0.0))

        assert sent(live()) == []
        assert sent(live(device_id=7, takes_sync=True)) == [2, 3]
        assert read(Session(Limits(), Pace())) == []
        assert read(Session(Limits(), Pace(), device_id=7, takes_sync=True)) == [2, 3]

    def test_a_stale_row_is_sent_again_unless_it_is_on_its_way(self) -> None:
        """Redelivery never doubles what is in flight."""
        session = live()
        (again,) = rows(1)
        assert kinds(session.redeliver(again, 0.0)) == ["Send", "SendPing"]
        assert session.redeliver(again, 0.0) == []


class TestConfirmation:
    def test_a_ping_goes_along_unless_the_last_one_is_younger_than_the_pace(self) -> None:
        """Then one 200 ms after the first unconfirmed row, and none while another is outstanding."""
        session = live()
        assert kinds(session.route(rows(1), a_pass(50, 51), 10.0)) == ["Send", "SendPing"]
        session.pong(10.05)
        assert kinds(session.route(rows(2), a_pass(51, 52), 10.1)) == ["Send"]
        assert session.deadline() == pytest.approx(10.3)
        assert session.tick(10.25) == []

        assert kinds(session.tick(10.3)) == ["SendPing"]
        assert kinds(session.route(rows(3, xid=52), a_pass(52, 53), 10.6)) == ["Send"]
        assert session.tick(10.9) == []

    def test_while_very_many_rows_are_sent_at_once_no_ping_goes_along(self) -> None:
        """It follows after 200 ms, when all of them are out; half a window full is asked for all the same."""
        pace = Pace()
        session = live(pace=pace)
        with pace.burst():
            assert kinds(session.route(rows(1), a_pass(50, 51), 10.0)) == ["Send"]
            many = session.route(rows(*range(2, 17)), a_pass(51, 52), 10.0)
            assert kinds(many) == ["Send"] * 15 + ["SendPing"]
            session.pong(10.05)
            assert kinds(session.route(rows(17, xid=52), a_pass(52, 53), 11.0)) == ["Send"]
        assert kinds(session.tick(session.deadline())) == ["SendPing"]

    def test_a_ping_goes_along_with_rows_that_wait_for_one(self) -> None:
        """When the last one has become older than the pace meanwhile."""
        session = live()
        session.route(rows(1), a_pass(50, 51), 10.0)
        session.pong(10.0)
        assert kinds(session.route(rows(2), a_pass(51, 52), 10.15)) == ["Send"]
        assert kinds(session.route(rows(3, xid=51), a_pass(51, 52), 10.25)) == ["Send", "SendPing"]
        assert session.pong(10.3) == [Confirmed(((2, 0), (3, 0)), (), None)]

    def test_a_pong_confirms_only_what_was_sent_before_its_ping(self) -> None:
        """A row sent after the ping waits for the next one."""
        session = live()
        session.route(rows(1), a_pass(50, 51), 0.0)
        session.route(rows(2), a_pass(51, 52), 0.05)

        actions = session.pong(0.1)

        assert actions == [Confirmed(((1, 0),), (), None)]
        assert session.in_flight == 1
        assert session.deadline() == pytest.approx(0.3)

    def test_a_device_learns_its_position_with_the_confirmation(self) -> None:
        """The position is that of the last row confirmed."""
        session = live(device_id=7)
        passing = a_pass(50, 51)
        session.route(rows(1, 2), passing, 0.0)

        assert session.pong(0.3) == [Confirmed(((1, 0), (2, 0)), (), passing.at(2))]

    def test_a_pong_nobody_asked_for_confirms_nothing(self) -> None:
        """Unsolicited pongs are allowed by RFC 6455 and mean nothing."""
        session = live()
        session.route(rows(1), a_pass(50, 51), 0.0)
        session.pong(0.1)
        session.route(rows(2), a_pass(51, 52), 0.15)
        assert session.pong(0.16) == []
        assert session.in_flight == 1

    def test_the_window_follows_the_peer(self) -> None:
        """A slow reader is asked after fewer rows, a quick one after more."""

        def window_after(waited: float) -> int:
            session = Session(Limits(window=256), Pace())
            session.open(0.0)
            session.begin_read(a_pass(40, 50))
            session.page(rows(*range(1, 3000)), more=True, now=0.0)
            now = 0.0
            for _ in range(10):
                now += waited
                session.pong(now)
            return session.in_flight

        assert window_after(30.0) < 32 < window_after(0.01)

    def test_a_reader_of_one_row_a_second_is_not_given_up(self) -> None:
        """Ten thousand rows wait; each second the client takes one; nobody is closed."""
        session = Session(Limits(), Pace())
        session.open(0.0)
        session.begin_read(a_pass(40, 50))
        sent = list(session.page(rows(*range(1, 501)), more=True, now=0.0))
        now, in_the_pipe = 0.0, []
        for _ in range(400):
            in_the_pipe += [action for action in sent if isinstance(action, Send | SendPing)]
            assert not any(isinstance(action, Close) for action in sent)
            now += 1.0
            sent = list(session.tick(now))
            if in_the_pipe:
                in_the_pipe.pop(0)
            while in_the_pipe and isinstance(in_the_pipe[0], SendPing):
                in_the_pipe.pop(0)
                sent += session.pong(now)


class TestPeersThatAreGone:
    def test_an_idle_peer_is_pinged_and_given_up_without_an_answer(self) -> None:
        """A ping after 20 s of silence, 20 s of patience, then 1011."""
        session = live()
        assert session.tick(19.9) == []
        assert kinds(session.tick(20.0)) == ["SendPing"]
        assert session.tick(39.9) == []
        (close,) = session.tick(40.0)
        assert isinstance(close, Close)
        assert close.code is CloseCode.INTERNAL_ERROR

    def test_a_peer_that_takes_nothing_for_a_minute_is_closed(self) -> None:
        """Rows in flight and no progress: 4408, and the rows stay unconfirmed."""
        session = live()
        session.route(rows(1, 2), a_pass(50, 51), 0.0)
        session.tick(0.2)
        assert session.tick(59.9) == []

        (close,) = session.tick(60.0)

        assert isinstance(close, Close)
        assert close.code is CloseCode.TOOK_NOTHING
        assert session.confirming.unconfirmed == [1, 2]

    def test_nothing_happens_after_the_end(self) -> None:
        """A closed session asks for nothing more."""
        session = live()
        session.close(CloseCode.GOING_AWAY, "")
        assert session.route(rows(1), a_pass(50, 51), 0.0) == []
        assert session.receive("ping", 0.0) == []
        assert session.pong(0.0) == []
        assert session.deadline() == float("inf")


class TestWhatClientsSay:
    def test_a_heartbeat_is_answered(self) -> None:
        """As text or as JSON."""
        session = live()
        for text in ("ping", "heartbeat", '{"type":"ping"}'):
            assert session.receive(text, 0.0) == [Answer()]

    def test_the_twenty_first_error_within_a_minute_ends_it(self) -> None:
        """Twenty are told; the next is told, too, and closes with 4400."""
        session = live()
        for number in range(20):
            assert kinds(session.receive("rubbish", float(number))) == ["Complain"]

        actions = session.receive("rubbish", 20.0)

        assert kinds(actions) == ["Complain", "Close"]
        assert isinstance(actions[-1], Close)
        assert actions[-1].code is CloseCode.BAD_REQUEST

    def test_errors_are_forgotten_after_a_minute(self) -> None:
        """Patience is counted per minute."""
        session = live()
        for number in range(60):
            assert kinds(session.receive("rubbish", number * 4.0)) == ["Complain"]

    def test_too_many_messages_in_a_second_are_told(self) -> None:
        """The twenty-first of a second is not taken."""
        session = live()
        for _ in range(20):
            assert session.receive("ping", 5.0) == [Answer()]
        assert session.receive("ping", 5.9) == [Complain(inbound.RATE_LIMITED)]
        assert session.receive("ping", 6.0) == [Answer()]


class TestIdlePosition:
    def test_a_live_session_with_nothing_under_way_has_whatever_was_routed(self) -> None:
        """The stored position of a quiet device moves on with the tail."""
        session = live(device_id=7)
        assert session.settled_position(a_pass(80, 90)) == a_pass(80, 90).end()

    def test_not_while_something_is_in_flight(self) -> None:
        """What is not confirmed must not be covered."""
        session = live(device_id=7)
        session.route(rows(1), a_pass(50, 51), 0.0)
        assert session.settled_position(a_pass(80, 90)) is None

    def test_next_page_is_an_action_without_content(self) -> None:
        """Actions compare by value, so tests and shells can."""
        assert NextPage() == NextPage()


class TestPeersThatAnswerNothing:
    """A pong then says that the peer's transport has taken it; only living on confirms it."""

    LIMITS = Limits(window=4, confirmed_after=60.0, unproven=8)

    def test_what_was_taken_makes_room_and_is_confirmed_by_living_on(self) -> None:
        """The window moves at once; nothing is marked before the time has passed."""
        session = live(self.LIMITS, device_id=7)
        session.route(rows(1, 2, 3, 4), a_pass(50, 51), 0.0)

        assert kinds(session.pong(1.0)) == []
        assert (session.in_flight, session.confirming.unproven) == (0, 4)
        assert kinds(session.route(rows(5, xid=51), a_pass(51, 52), 2.0)) == ["Send", "SendPing"]
        session.pong(2.5)
        confirmed = confirmations(session, until=60.9)
        assert confirmed == []
        confirmed = confirmations(session, until=65.0)

        assert [[row_id for row_id, _ in one.events] for one in confirmed] == [[1, 2, 3, 4, 5]]
        assert confirmed[0].position == a_pass(51, 52).at(5)
        assert session.confirming.unproven == 0

    def test_it_is_on_its_way_until_then(self) -> None:
        """So that a job which looks for stale rows does not send it again."""
        session = live(self.LIMITS)
        session.route(rows(3, 1), a_pass(50, 51), 0.0)
        session.tick(1.0)
        session.pong(1.0)

        assert session.is_on_its_way(1)
        assert session.is_on_its_way(3)
        assert not session.is_on_its_way(2)
        confirmations(session, until=70.0)
        assert not session.is_on_its_way(1)

    def test_a_device_is_not_settled_until_then(self) -> None:
        """Its stored position would cover what may yet be lost."""
        session = live(self.LIMITS)
        session.route(rows(1), a_pass(50, 51), 0.0)
        session.tick(1.0)
        session.pong(1.0)

        assert session.settled_position(a_pass(50, 52)) is None
        confirmations(session, until=70.0)
        assert session.settled_position(a_pass(50, 52)) == a_pass(50, 52).end()

    def test_what_waits_for_time_is_bounded(self) -> None:
        """At the bound nothing more is sent, the queue gives way to the table, and time makes room."""
        session = live(Limits(window=4, queue=3, confirmed_after=60.0, unproven=8))
        sent: list[int] = []
        for row_id in range(1, 30):
            xid = 49 + row_id
            sent += ids(session.route(rows(row_id, xid=xid), a_pass(xid, xid + 1), 1.0))
            sent += ids(session.pong(1.0))

        assert len(sent) <= 8 + 4
        assert session.phase is Phase.CATCHING_UP
        assert session.waiting == 0
        actions = passed(session, until=70.0)
        (place,) = [at for at, action in enumerate(actions) if isinstance(action, Confirmed)]
        read = actions[place + 1]
        assert isinstance(read, StartRead)
        assert read.position is not None
        assert read.position.after_id == sent[-1]

    def test_what_a_peer_had_that_left_stays_unconfirmed(self) -> None:
        """Nobody knows whether it was read."""
        session = live(self.LIMITS)
        session.route(rows(1), a_pass(50, 51), 0.0)
        session.tick(1.0)
        session.pong(1.0)
        session.closed()

        assert session.confirming.unproven == 0
        assert session.tick(100.0) == []
        assert session.deadline() == float("inf")

    def test_a_peer_that_takes_nothing_is_closed(self) -> None:
        """As on a WebSocket, whatever it had taken before."""
        session = live(self.LIMITS)
        session.route(rows(1, 2, 3, 4, 5), a_pass(50, 51), 0.0)

        actions = passed(session, until=60.0, answering=False)

        assert actions[-1] == Close(CloseCode.TOOK_NOTHING, "took nothing for too long; reconnect and resume")


def passed(session: Session, *, until: float, answering: bool = True) -> list[object]:
    """What a session does while time passes and its peer takes everything, or nothing."""
    actions: list[object] = []
    while (now := session.deadline()) <= until:
        actions += session.tick(now)
        if answering:
            actions += session.pong(now)
    return actions


def confirmations(session: Session, *, until: float) -> list[Confirmed]:
    return [action for action in passed(session, until=until) if isinstance(action, Confirmed)]


def ids(actions: list[object]) -> list[int]:
    return [action.message.id for action in actions if isinstance(action, Send)]
