"""Tokens carry positions exactly, or lowered where they would be too long, and nothing else is one."""

import base64
import random
import string
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.core.position import Incarnation, Position
from app.core.snapshot import MAX_XID, Snapshot
from app.core.token import MAX_CHARS, VERSION, Holder, TokenError, decode, encode

ANNA = Holder("anna", 7)

MALFORMED = 100_000
"""Inputs tried against the reader; they take about three seconds."""


def is_xid(number: int) -> bool:
    return number % (1 << 32) != 0


@st.composite
def snapshots(draw: st.DrawFn, *, most: int = 30) -> Snapshot:
    xmax = draw(st.integers(1, MAX_XID).filter(is_xid))
    below = st.integers(1, xmax - 1).filter(is_xid)
    in_progress = draw(st.frozensets(below, max_size=most)) if xmax > 1 else frozenset()
    return Snapshot(xmax, in_progress)


@st.composite
def positions(draw: st.DrawFn) -> Position:
    reading = draw(st.none() | snapshots())
    return Position(
        draw(snapshots()),
        draw(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))),  # noqa: DTZ001
        Incarnation(draw(st.integers(0, 2**64 - 1)), draw(st.binary(min_size=8, max_size=8)).hex()),
        reading,
        draw(st.integers(0, MAX_XID)) if reading is not None else 0,
    )


def crowded(count: int, *, gap: int, reading: bool = False) -> Position:
    """A position taken while `count` transactions were in progress, `gap` xids apart."""
    in_progress = frozenset(range(5_000_000_000, 5_000_000_000 + count * gap, gap))
    snapshot = Snapshot(5_000_000_000 + count * gap, in_progress)
    later = Snapshot(snapshot.xmax + 1000, in_progress) if reading else None
    return Position(
        snapshot,
        datetime(2026, 11, 22, tzinfo=UTC),
        Incarnation(2**63 + 5, "00ff" * 4),
        later,
        77 if reading else 0,
    )


@given(positions())
def test_a_token_is_read_back_exactly(position: Position) -> None:
    """Whatever fits is carried to the microsecond and the transaction; it is safe in a URL."""
    token = encode(position, ANNA)
    if len(position.seen.in_progress) + len(getattr(position.reading, "in_progress", ())) < 60:
        assert decode(token).position == position
    assert set(token) <= set(string.ascii_letters + string.digits + "-_")


def test_an_ordinary_token_is_short() -> None:
    """Sixteen writers and a read under way take less than 120 characters."""
    assert len(encode(crowded(16, gap=3, reading=True), ANNA)) < 120


@given(st.integers(0, 5000), st.sampled_from([1, 2, 300, 70_000]), st.booleans())
def test_a_long_token_is_lowered_and_never_skips(count: int, gap: int, reading: bool) -> None:
    """Above 2 KiB the reader gets rows again: what it was missing it is still missing."""
    position = crowded(count, gap=gap, reading=reading)
    token = encode(position, ANNA)
    assert len(token) <= MAX_CHARS
    carried = decode(token).position
    assert position.seen.covers(carried.seen)
    assert carried.taken_at == position.taken_at
    for xid in range(position.seen.xmin - 1, position.seen.xmax + 2, max(1, gap // 2)):
        for row_id in (1, 77, 78):
            assert position.has(xid, row_id) or not carried.has(xid, row_id)


def test_a_position_in_mid_read_keeps_its_place_when_it_fits() -> None:
    """The control: what is just short enough is not lowered."""
    position = crowded(600, gap=1, reading=True)
    assert decode(encode(position, ANNA)).position == position


@pytest.mark.parametrize(
    "text", ["", "=", "A", "AA", "AQ==", "ñ", "\ud800", "A" * 2049, "not a token", "AQ\n"]
)
def test_rubbish_is_refused(text: str) -> None:
    """The one error says so."""
    with pytest.raises(TokenError):
        decode(text)


@pytest.mark.parametrize(
    "snapshot",
    [Snapshot(1 << 32), Snapshot((5 << 32) + 9, frozenset({5 << 32}))],
    ids=["xmax", "in progress"],
)
def test_what_no_transaction_can_be_is_refused(snapshot: Snapshot) -> None:
    """PostgreSQL takes no such snapshot, so that one must not come to be stored."""
    text = encode(Position(snapshot, datetime(2026, 1, 1, tzinfo=UTC), Incarnation(1, "00" * 8)), ANNA)
    with pytest.raises(TokenError):
        decode(text)


def test_a_token_says_whose_it_is() -> None:
    """Of one user, and with the sync rows of one device or of none."""
    with_sync = decode(encode(crowded(3, gap=1), ANNA))
    without = decode(encode(crowded(3, gap=1), Holder("anna")))

    assert with_sync.is_of("anna")
    assert not with_sync.is_of("bert")
    assert [with_sync.has_sync_of(Holder("anna", device)) for device in (7, 8, None)] == [True, False, True]
    assert [without.has_sync_of(Holder("anna", device)) for device in (7, None)] == [False, True]


def test_nothing_but_its_own_error_comes_of_malformed_tokens() -> None:
    """Random text, random bytes, and tokens with bits, characters and lengths changed."""
    rng = random.Random(20261122)
    tokens = [
        encode(crowded(n, gap=g, reading=r), ANNA)
        for n in (0, 3, 40)
        for g in (1, 900)
        for r in (False, True)
    ]
    refused = 0
    for _ in range(MALFORMED):
        text = mutated(rng, rng.choice(tokens))
        try:
            token = decode(text)
        except TokenError:
            refused += 1
        else:
            assert token.text() == text
    assert refused > MALFORMED // 2


def mutated(rng: random.Random, token: str) -> str:
    match rng.randrange(5):
        case 0:
            return "".join(rng.choices(string.printable, k=rng.randrange(60)))
        case 1:
            return (
                base64.urlsafe_b64encode(bytes([VERSION]) + rng.randbytes(rng.randrange(60)))
                .rstrip(b"=")
                .decode()
            )
        case 2:
            at = rng.randrange(len(token))
            return token[:at] + rng.choice(string.ascii_letters + "-_=+/é") + token[at + 1 :]
        case 3:
            raw = bytearray(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
            return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
        case _:
            return token[: rng.randrange(len(token))] + token[rng.randrange(len(token)) :]


def test_time_runs_to_the_microsecond() -> None:
    """The overlap rule and retention compare it with the database's own times."""
    taken_at = datetime(2026, 11, 22, 1, 2, 3, 456789, tzinfo=UTC)
    position = Position(Snapshot(9), taken_at, Incarnation(1, "00" * 8))
    assert decode(encode(position, ANNA)).position.taken_at - taken_at == timedelta(0)
