"""The layer above a frame, without I/O: messages come out as they went in, however they were cut."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from app.gateway.uvicorn_host.inbound import (
    FRAMES_AT_ONCE,
    SKIP_FACTOR,
    Arrival,
    Binary,
    Closing,
    Inbound,
    Ping,
    Pong,
    Text,
    TooLarge,
    Violation,
    lone_frame,
)

LIMIT = 300


def masked(opcode: Opcode, data: bytes = b"", *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def feed(*chunks: bytes, limit: int = LIMIT) -> list[Arrival]:
    inbound = Inbound(limit)
    return [arrival for chunk in chunks for arrival in inbound.feed(chunk)]


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[Arrival]]:
    """A client's byte stream and what it says: messages in fragments, with pings between them."""
    stream, arrivals = b"", []
    for _ in range(draw(st.integers(1, 5))):
        text = draw(st.text(max_size=20)) * draw(st.sampled_from([1, 1, 1, 40]))
        data = text.encode()
        cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=4)))
        bounds = [0, *cuts, len(data)]
        size, told = 0, False
        for number, (start, end) in enumerate(pairwise(bounds)):
            last = number == len(bounds) - 2
            stream += masked(Opcode.CONT if number else Opcode.TEXT, data[start:end], fin=last)
            size += end - start
            if size > LIMIT and not told:
                arrivals.append(TooLarge())
                told = True
            if last and not told:
                arrivals.append(Text(text))
            if draw(st.booleans()):
                payload = draw(st.binary(max_size=125))
                stream += masked(Opcode.PING, payload)
                arrivals.append(Ping(payload))
    return stream, arrivals


@given(streams(), st.data())
def test_messages_come_out_as_they_went_in(stream: tuple[bytes, list[Arrival]], data: st.DataObject) -> None:
    """Whatever the fragments and wherever the network cuts the bytes; too large ones are told once."""
    raw, arrivals = stream
    cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
    bounds = [0, *cuts, len(raw)]
    chunks = [raw[start:end] for start, end in pairwise(bounds)]
    assert feed(*chunks) == arrivals


@given(streams())
def test_one_byte_at_a_time_makes_no_difference(stream: tuple[bytes, list[Arrival]]) -> None:
    """The slowest network tells the same."""
    raw, arrivals = stream
    assert feed(*(raw[at : at + 1] for at in range(len(raw)))) == arrivals


@given(st.binary(max_size=400))
def test_rubbish_ends_in_a_violation_or_in_nothing_and_never_in_an_exception(rubbish: bytes) -> None:
    """Whatever bytes come, the parser has an answer, and after a violation it says no more."""
    inbound = Inbound(LIMIT)
    arrivals = list(inbound.feed(rubbish))
    ends = [each for each in arrivals if isinstance(each, Violation | Closing)]
    assert ends == arrivals[len(arrivals) - len(ends) :]
    assert len(ends) <= 1
    if ends:
        assert list(inbound.feed(rubbish)) == []


@given(st.sampled_from([Opcode.TEXT, Opcode.PONG, Opcode.BINARY, Opcode.PING]), st.binary(max_size=130))
def test_the_short_way_for_lone_frames_says_the_same(opcode: Opcode, payload: bytes) -> None:
    """A frame read without a parser brings what the parser would have brought."""
    raw = masked(opcode, payload[:125] if opcode in (Opcode.PING, Opcode.PONG) else payload)
    alone = lone_frame(raw)
    if alone is not None:
        assert feed(raw) == [alone]


@given(st.binary(max_size=140))
def test_the_short_way_leaves_everything_else_alone(raw: bytes) -> None:
    """It never takes what is not exactly one valid frame."""
    alone = lone_frame(raw)
    if alone is not None:
        assert feed(raw) == [alone]


def test_the_short_way_is_taken_for_acks_and_pongs() -> None:
    """What a client mostly sends needs no parser."""
    assert lone_frame(masked(Opcode.TEXT, b'{"type":"ack","seq":1}')) == Text('{"type":"ack","seq":1}')
    assert lone_frame(masked(Opcode.PONG, b"abcd")) == Pong(b"abcd")


def test_nothing_is_kept_between_messages() -> None:
    """After a whole message the parser is idle, in the middle of one it is not."""
    inbound = Inbound(LIMIT)
    raw = masked(Opcode.TEXT, b"hello")
    for cut in range(1, len(raw)):
        assert list(inbound.feed(raw[:cut])) == []
        assert not inbound.idle
        assert list(inbound.feed(raw[cut:])) == [Text("hello")]
        assert inbound.idle


def test_a_binary_message_tells_its_size_only() -> None:
    """Fragments count together."""
    assert feed(masked(Opcode.BINARY, b"12", fin=False), masked(Opcode.CONT, b"345")) == [Binary(5)]


def test_a_message_above_the_limit_is_skipped_without_being_kept() -> None:
    """The next message is read as if nothing had been; the buffer never grows with the skipped one."""
    inbound = Inbound(LIMIT)
    big = masked(Opcode.TEXT, b"x" * (LIMIT * SKIP_FACTOR))
    arrivals = []
    for at in range(0, len(big), 100):
        arrivals += inbound.feed(big[at : at + 100])
        assert len(inbound._reader.buffer) <= 100
    assert arrivals == [TooLarge()]
    for opcode in (Opcode.TEXT, Opcode.CONT, Opcode.CONT):
        inbound_fragment = masked(opcode, b"x" * 200, fin=False)
        told = list(inbound.feed(inbound_fragment))
    assert len(inbound._message) == 0
    assert told == []
    assert list(inbound.feed(masked(Opcode.CONT))) == []
    assert list(inbound.feed(masked(Opcode.TEXT, b"next"))) == [Text("next")]


def test_a_message_at_the_limit_is_taken() -> None:
    """The limit itself is allowed, in one piece or many."""
    text = "x" * LIMIT
    pieces = [masked(Opcode.TEXT, b"x" * 100, fin=False), masked(Opcode.CONT, b"x" * 100, fin=False)]
    assert feed(masked(Opcode.TEXT, text.encode())) == [Text(text)]
    assert feed(*pieces, masked(Opcode.PING, b"!" * 125), masked(Opcode.CONT, b"x" * 100)) == [
        Ping(b"!" * 125),
        Text(text),
    ]


def test_a_message_far_above_the_limit_ends_the_connection() -> None:
    """In one frame, which is not even read, or in fragments without end."""
    [end] = feed(masked(Opcode.TEXT, b"x" * (LIMIT * SKIP_FACTOR + 1))[:20])
    assert isinstance(end, Violation)
    assert end.code == 1009
    fragments = [masked(Opcode.CONT, b"x" * LIMIT, fin=False)] * SKIP_FACTOR
    told, end = feed(masked(Opcode.TEXT, b"x", fin=False), *fragments)
    assert told == TooLarge()
    assert isinstance(end, Violation)
    assert end.code == 1009


def test_a_flood_of_empty_frames_in_one_read_ends_the_connection() -> None:
    """It costs the client six bytes a frame and us a thousand times as much."""
    flood = masked(Opcode.PING) * (FRAMES_AT_ONCE + 1)
    *pings, end = feed(flood)
    assert pings == [Ping(b"")] * FRAMES_AT_ONCE
    assert isinstance(end, Violation)
    assert end.code == 1008
