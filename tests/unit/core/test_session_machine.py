"""For any history of writes, reads, confirmations, cuts and crashes: no gap, no leak of order, no repeat."""

import random
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from app.core.acks import SENT_AGAIN_AT_MOST
from app.core.actions import Action, Close, Confirmed, NextPage, Refused, Send, SendPing, StartRead
from app.core.flight import Limits, Pace
from app.core.messages import Message
from app.core.position import Position
from app.core.session import Phase, Session
from tests.unit.core.model import Reading, Row, Table, Tail

LIMITS = Limits(window=6, queue=4)


class Delivery(RuleBasedStateMachine):
    """One device of one user, connected or not, beside writers, the tail and the database's crashes."""

    LIMITS = LIMITS
    ACKS = False

    def __init__(self) -> None:
        super().__init__()
        self.table = Table()
        self.tail = Tail(self.table)
        self.session: Session | None = None
        self.reading: Reading | None = None
        self.asked: StartRead | NextPage | None = None
        self.pinged = self.marks_are_held = False
        self.now = 0.0
        self.stored: Position | None = None
        self.own: Position | None = None
        # By connection: the rows in the order in which the client got them.
        self.received: list[Row] = []
        self.ever_received: set[int] = set()
        self.confirmed: set[int] = set()
        self.refused: set[int] = set()
        self.crashed_while_connected = False
        # By sequence number: rows sent to a client that acknowledges, and not yet acknowledged.
        self.outstanding: dict[int, int] = {}
        self.sent_again = 0

    # ---- writers

    @rule()
    def begin(self) -> None:
        if len(self.table.open) < 4:
            self.table.begin()

    @precondition(lambda self: self.table.open)
    @rule(which=st.integers(0, 3), count=st.integers(1, 4))
    def insert(self, which: int, count: int) -> None:
        xid = sorted(self.table.open)[which % len(self.table.open)]
        for _ in range(count):
            self.table.insert(xid)

    @precondition(lambda self: self.table.open)
    @rule(which=st.integers(0, 3), keep=st.booleans())
    def finish(self, which: int, keep: bool) -> None:
        xid = sorted(self.table.open)[which % len(self.table.open)]
        self.table.commit(xid) if keep else self.table.roll_back(xid)

    @rule(count=st.integers(1, 8))
    def write_at_once(self, count: int) -> None:
        xid = self.table.begin()
        for _ in range(count):
            self.table.insert(xid)
        self.table.commit(xid)

    # ---- the service

    @rule(cut=st.integers(0, 5))
    def tail_reads(self, cut: int) -> None:
        found_by, rows = self.tail.read()
        if self.session is not None:
            for page in (rows[:cut], rows[cut:]):
                if page and self.session is not None:
                    self.perform(self.session.route([row.message for row in page], found_by, self.now))
        self.tail.done = found_by

    @precondition(lambda self: self.session is None)
    @rule()
    def connect(self) -> None:
        self.session = self.returning()
        self.sent_again = 0
        self.pinged = False
        self.perform(self.session.open(self.now))

    def returning(self) -> Session:
        """A connection that goes on where its device was."""
        self.received = []
        self.crashed_while_connected = False
        return Session(self.LIMITS, Pace(), position=self.stored, device_id=1, acks=self.ACKS)

    @precondition(lambda self: self.session is not None and self.asked is not None)
    @rule(page=st.integers(1, 5))
    def serve_read(self, page: int) -> None:
        assert self.session is not None
        asked, self.asked = self.asked, None
        if isinstance(asked, StartRead):
            self.reading = Reading(self.table, page, self.refused)
            begun = self.reading.start(asked.position, with_undelivered=asked.with_undelivered)
            self.session.begin_read(begun.first, partial=begun.partial)
            page_read = begun.page
        else:
            assert self.reading is not None
            if self.reading.broken:
                self.perform(self.session.interrupt(self.now))
                return
            page_read = self.reading.next_page()
        self.perform(self.session.page(page_read.messages, more=page_read.more, now=self.now))

    @precondition(lambda self: self.session is not None)
    @rule()
    def leave_a_room(self) -> None:
        assert self.session is not None
        self.perform(self.session.read_again(self.now))

    @precondition(lambda self: self.session is not None and self.pinged)
    @rule(after=st.sampled_from([0.01, 2.0, 10.0]), held=st.booleans())
    def answer_ping(self, after: float, held: bool = False) -> None:
        """Confirm what is in flight; `held`: the device's position is written and the rows' marks are not."""
        assert self.session is not None
        self.now += after
        self.pinged = False
        self.marks_are_held = held
        self.perform(self.session.pong(self.now))

    @precondition(lambda self: self.session is not None and not self.pinged)
    @rule()
    def time_passes(self) -> None:
        assert self.session is not None
        self.now += 0.3
        self.perform(self.session.tick(self.now))

    @precondition(lambda self: self.session is not None)
    @rule(settle=st.booleans())
    def cut(self, settle: bool) -> None:
        assert self.session is not None
        if settle:
            self.tell_position(self.session)
        self.session.closed()
        self.session = self.asked = self.reading = None
        self.outstanding.clear()

    def tell_position(self, session: Session) -> None:
        """Have an idle connection's position kept."""
        if (settled := session.settled_position(self.tail.done)) is not None:
            self.move_to(settled)

    @rule()
    def crash(self) -> None:
        self.table.crash()
        self.crashed_while_connected = True

    # ---- what a client that acknowledges does (only then is there anything to do)

    @precondition(lambda self: self.outstanding)
    @rule(how_many=st.integers(1, 6))
    def acknowledge(self, how_many: int) -> None:
        assert self.session is not None
        number, oldest = list(self.outstanding)[:how_many][-1], self.session.confirming.oldest_unacked
        self.perform(self.session.receive(f'{{"type":"ack","seq":{number}}}', self.now))
        self.outstanding = {n: row_id for n, row_id in self.outstanding.items() if n > number}
        self.note_progress(oldest)

    @precondition(lambda self: self.outstanding)
    @rule(which=st.integers(0, 5))
    def refuse(self, which: int) -> None:
        assert self.session is not None
        number, oldest = (
            list(self.outstanding)[which % len(self.outstanding)],
            self.session.confirming.oldest_unacked,
        )
        if self.outstanding[number] not in self.refused:
            self.perform(self.session.receive(f'{{"type":"nack","seq":{number}}}', self.now))
        self.note_progress(oldest)

    def note_progress(self, oldest: Message | None) -> None:
        """The oldest is sent again three times at most, until another is the oldest."""
        if self.session is not None and self.session.confirming.oldest_unacked is not oldest:
            self.sent_again = 0

    @precondition(lambda self: self.session is not None and self.refused)
    @rule()
    def send_refused_again(self) -> None:
        assert self.session is not None
        for row_id in sorted(self.refused):
            self.perform(self.session.redeliver(self.table.rows[row_id].message, self.now))

    @precondition(lambda self: self.outstanding and not self.pinged and self.sent_again < 3)
    @rule()
    def acknowledge_nothing_for_a_minute(self) -> None:
        assert self.session is not None
        self.sent_again += 1
        self.now += 61
        self.perform(self.session.tick(self.now))

    # ---- what is done

    def move_to(self, position: Position) -> None:
        before, self.stored = self.stored, position
        if before is not None and before.incarnation == position.incarnation == self.table.incarnation:
            back = [
                row.id
                for row in self.table.rows.values()
                if before.has(row.xid, row.id) and not position.has(row.xid, row.id)
            ]
            assert not back, f"the position went back over {back}"

    def perform(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Send(message, position, number, again):
                    row = self.table.rows[message.id]
                    self.own = position or self.own
                    if number is not None:
                        self.outstanding[number] = row.id
                    if not again:
                        self.received.append(row)
                    self.ever_received.add(row.id)
                case Refused(message):
                    self.refused.add(message.id)
                case SendPing():
                    assert not self.pinged, "two pings outstanding"
                    self.pinged = True
                case StartRead() | NextPage():
                    assert self.asked is None, "two reads at once"
                    self.asked = action
                case Confirmed(events, _, position, redelivered):
                    self.confirmed.update(row_id for row_id, _ in events)
                    self.refused.difference_update(row_id for row_id, _ in redelivered)
                    for row_id, _ in events:
                        self.table.rows[row_id].delivered = not self.marks_are_held
                    if position is not None:
                        self.move_to(position)
                case Close():
                    raise AssertionError("a peer that answers was closed")

    @invariant()
    def bounds_hold(self) -> None:
        if self.session is not None:
            # Of a client that acks each row may stand there once more for each time that it was sent again.
            assert self.session.in_flight <= self.LIMITS.window * (1 + SENT_AGAIN_AT_MOST * self.ACKS)
            # At most a page, and what was held back while it was read.
            assert self.session.waiting <= 2 * self.LIMITS.queue + 8 + 5

    @invariant()
    def nothing_twice_on_one_connection(self) -> None:
        if not self.crashed_while_connected:
            ids = [row.id for row in self.received]
            assert len(ids) == len(set(ids)), f"repeated: {ids}"

    @invariant()
    def in_order_of_commit(self) -> None:
        if self.crashed_while_connected:
            return
        for place, row in enumerate(self.received):
            for later in self.received[place + 1 :]:
                assert later.committed_at is not None
                assert later.committed_at > row.written_at, "an older commit came after a younger write"

    @invariant()
    def the_stored_position_covers_only_what_was_confirmed(self) -> None:
        stored = self.stored
        if stored is None or stored.incarnation != self.table.incarnation:
            return
        for row in self.table.rows.values():
            if stored.has(row.xid, row.id):
                assert row.id in self.confirmed | self.refused, (
                    f"row {row.id} is covered and was not confirmed"
                )

    def teardown(self) -> None:
        """Let everything drain: the client ends up with every committed row."""
        for xid in list(self.table.open):
            self.table.commit(xid)
        if self.session is None:
            self.connect()
        for _ in range(10_000):
            self.tail_reads(2)
            if self.asked is not None:
                self.serve_read(3)
            elif self.outstanding:
                self.acknowledge(6)
            elif self.refused and self.session is not None and self.session.phase is Phase.LIVE:
                self.send_refused_again()
            elif self.pinged:
                self.answer_ping(0.01)
            elif self.session is not None and (self.session.in_flight or self.session.confirming.unproven):
                self.time_passes()
            else:
                break
        assert set(self.table.rows) == self.ever_received
        assert set(self.table.rows) == self.confirmed
        self.in_order_of_commit()
        self.nothing_twice_on_one_connection()


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(max_examples=150, stateful_step_count=50, deadline=None)


class SilentDelivery(Delivery):
    """The same with a peer that answers nothing: its pongs say what was taken, and time confirms."""

    LIMITS = replace(LIMITS, confirmed_after=1.0, unproven=10)

    @invariant()
    def what_waits_for_time_is_bounded(self) -> None:
        if self.session is not None:
            assert self.session.confirming.unproven < self.LIMITS.unproven + self.LIMITS.window


TestSilentDelivery = SilentDelivery.TestCase
TestSilentDelivery.settings = TestDelivery.settings


class AcknowledgedDelivery(Delivery):
    """The same with a client that acknowledges, late or not, and refuses now and then."""

    ACKS = True


TestAcknowledgedDelivery = AcknowledgedDelivery.TestCase
TestAcknowledgedDelivery.settings = TestDelivery.settings


class ResumedDelivery(Delivery):
    """The same with a client that keeps its position, of a message or a pong: nothing twice on all its connections."""

    def returning(self) -> Session:
        """A connection that goes on where its client was, which proves what that covers."""
        own = self.own
        if own is not None and own.incarnation == self.table.incarnation:
            for row in self.table.rows.values():
                if own.has(row.xid, row.id):
                    self.confirmed.add(row.id)
                    row.delivered = True
        return Session(self.LIMITS, Pace(), position=own, tells_positions=True, is_proven=own is not None)

    def tell_position(self, session: Session) -> None:
        """Have the client keep the position of a pong."""
        self.own = session.position_told(self.tail.done) or self.own


TestResumedDelivery = ResumedDelivery.TestCase
TestResumedDelivery.settings = TestDelivery.settings


@pytest.mark.parametrize("kind", [Delivery, SilentDelivery, AcknowledgedDelivery, ResumedDelivery])
@pytest.mark.parametrize("part", range(4))
def test_long_random_histories_lose_repeat_and_reorder_nothing(part: int, kind: type[Delivery]) -> None:
    """Many more histories than hypothesis has time for, weighted towards what is rare; the seed is told."""
    for seed in range(part * 200, part * 200 + 200):
        rng = random.Random(seed)
        try:
            play(kind(), rng)
        except Exception as error:
            raise AssertionError(f"history {seed}: {error}") from error


def play(history: Delivery, rng: random.Random) -> None:
    crashes = rng.random() < 0.3
    for _ in range(80):
        which, few = rng.randrange(4), rng.randint(1, 4)
        connected, asleep = history.session is not None, history.session is None
        able = {
            "begin": (2, True, history.begin),
            "insert": (4, history.table.open, lambda: history.insert(which, few)),
            "finish": (3, history.table.open, lambda: history.finish(which, rng.random() < 0.8)),
            "write": (2, True, lambda: history.write_at_once(rng.randint(1, 8))),
            "tail": (4, True, lambda: history.tail_reads(rng.randint(0, 5))),
            "connect": (6, asleep, history.connect),
            "serve": (5, connected and history.asked, lambda: history.serve_read(few)),
            "answer": (
                4,
                connected and history.pinged,
                lambda: history.answer_ping(rng.choice([0.01, 9.0]), rng.random() < 0.2),
            ),
            "ack": (4, history.outstanding, lambda: history.acknowledge(few)),
            "refuse": (1, history.outstanding, lambda: history.refuse(few)),
            "again": (1, connected and history.refused, history.send_refused_again),
            "impatience": (
                0.5,
                history.outstanding and not history.pinged and history.sent_again < 3,
                history.acknowledge_nothing_for_a_minute,
            ),
            "leave": (0.5, connected, history.leave_a_room),
            "wait": (2, connected and not history.pinged, history.time_passes),
            "cut": (1, connected, lambda: history.cut(rng.random() < 0.5)),
            "crash": (0.3 * crashes, True, history.crash),
        }
        possible = [(weight, do) for weight, may, do in able.values() if may]
        rng.choices([do for _, do in possible], [weight for weight, _ in possible])[0]()
        history.bounds_hold()
        history.nothing_twice_on_one_connection()
        history.in_order_of_commit()
        history.the_stored_position_covers_only_what_was_confirmed()
    history.teardown()
