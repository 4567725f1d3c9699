"""The benchmark's own pieces: what they get wrong, its figures get wrong."""

import json

import pytest

from bench import docs
from bench.frames import BINARY, PING, TEXT, frame, split
from bench.load.mqtt import packet, packets
from bench.load.nats import split as split_nats
from bench.load.process import paired
from bench.measures.base import Figures, Measure, Row, distribution, milliseconds
from bench.report import Result, aligned, markdown, summary
from bench.scale import FULL, QUICK
from bench.stamps import WRAP, age, find
from tests.support.postgres import ROOT


def sent(opcode: int, payload: bytes) -> bytes:
    """A frame as a server sends it: the client's, less its mask."""
    whole = frame(opcode, payload)
    head = whole[: len(whole) - len(payload) - 4]
    return head[:1] + bytes([head[1] & 0x7F]) + head[2:] + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536])
def test_frames_are_split_wherever_the_network_cuts_them(size: int) -> None:
    """A frame that is counted twice or not at all falsifies every rate."""
    stream = sent(TEXT, b"a" * size) + sent(PING, b"p") + sent(BINARY, b"b" * size)
    cuts = {1, 2, 3, 5, 11, len(stream) // 2, len(stream) - 1}

    for cut in cuts:
        first, rest = split(stream[:cut])
        second, left = split(rest + stream[cut:])

        assert first + second == [(TEXT, b"a" * size), (PING, b"p"), (BINARY, b"b" * size)]
        assert left == b""


@pytest.mark.parametrize("size", [0, 127, 128, 16384])
def test_mqtt_packets_are_split_wherever_the_network_cuts_them(size: int) -> None:
    """Their length has one to four bytes."""
    stream = packet(0x32, b"x" * size) + packet(0x40, b"\0\1")

    for cut in range(0, len(stream), max(1, len(stream) // 50)):
        first, rest = packets(stream[:cut])
        second, left = packets(rest + stream[cut:])

        assert first + second == [(0x32, b"x" * size), (0x40, b"\0\1")]
        assert left == b""


def test_nats_messages_are_split_wherever_the_network_cuts_them() -> None:
    """A payload may hold what looks like the end of a line."""
    stream = b"PING\r\nMSG to.p1 1 answer.here 4\r\n\r\n\r\n\r\nPING\r\n"

    for cut in range(len(stream)):
        first, rest = split_nats(stream[:cut])
        second, left = split_nats(rest + stream[cut:])

        assert [words[0] for words, _ in first + second] == [b"PING", b"MSG", b"PING"]
        assert (first + second)[1][1] == b"\r\n\r\n"
        assert left == b""


@pytest.mark.parametrize(
    ("message", "stamp"),
    [
        ({"type": "mood_update", "id": 7, "data": {"mood_score": 1234}}, 1234),
        ({"type": "chat_message", "id": 7, "data": {"message_id": "at-99-3"}}, 99),
        ({"type": "connected", "user_id": "p1"}, None),
    ],
)
def test_the_stamp_of_a_message_is_found(message: dict[str, object], stamp: int | None) -> None:
    """In what ours and the others send, spaces or none."""
    assert find(json.dumps(message).encode()) == stamp
    assert find(json.dumps(message, separators=(",", ":")).encode()) == stamp


def test_an_age_survives_the_wrap_of_the_clock() -> None:
    """It wraps every 36 minutes, and a run takes longer."""
    assert age(WRAP - 5, 10) == 15


def test_bells_are_paired_with_the_oldest_insert_of_their_user() -> None:
    """A bell says for whom it rings, not for which row."""
    begun = [("a", 10), ("b", 20), ("a", 30)]

    assert paired(begun, [("a", 15), ("a", 36), ("b", 27), ("c", 50)]) == [5, 6, 7]


def test_quantiles_are_those_of_the_ages() -> None:
    """In milliseconds, of microseconds."""
    ages = list(range(1000, 101_000, 1000))

    assert milliseconds(ages, 0.5) == 51
    assert milliseconds(ages, 0.99) == 100
    assert distribution(ages)[0] == (1, 0)


def test_the_table_divides_round_by_round_and_says_how_far_it_reached() -> None:
    """The machine drifts between rounds, so each is compared with itself."""
    measure = Measure(
        "some",
        "",
        ("ours", "floor"),
        lambda *_: Figures(),
        (
            Row("{room_members:,} at p50", "ours.p50 ms", "floor.p50 ms", 2.0, 1.3),
            Row("rate", "ours.rows/s", None, 100, 200, more_is_better=True),
        ),
    )
    figures = {"ours.p50 ms": [3.0, 30.0, 5.0], "floor.p50 ms": [2.0, 10.0, 4.0], "ours.rows/s": [50.0]}
    result = Result({"scale": vars(FULL)}, {"some": figures})

    lines = summary(result, [measure])

    assert lines[1] == ["1,000 at p50", "5 ms", "4", "1.50 x", "2x", "1.3x", "reached"]
    assert lines[2] == ["rate", "50 rows/s", "", "", "100", "200", "SHORT"]
    assert len({len(line) for line in (aligned(lines).splitlines()[:1], lines[:1])}) == 1
    assert markdown(lines).splitlines()[1] == "|---|---|---|---|---|---|---|"


def test_a_number_of_the_scale_can_be_changed_and_a_wrong_name_is_told() -> None:
    """Else somebody measures something else than they think."""
    changed = QUICK.but(["saturated_seconds=1", "latency_users=7"])

    assert (changed.saturated_seconds, changed.latency_users) == (1.0, 7)
    with pytest.raises(ValueError, match="no saturated_second;"):
        QUICK.but(["saturated_second=1"])


def test_the_document_has_the_figures_that_are_beside_it() -> None:
    """Figures without the run that they are from cannot be believed."""
    text = (ROOT / docs.DOCUMENT).read_text(encoding="utf-8")
    folder = ROOT / docs.RESULTS.parent
    plots = [f"{folder.name}/{plot.name}" for plot in sorted(folder.glob("*.svg"))]

    assert docs.written(text, Result.read(ROOT / docs.RESULTS), plots) == text
