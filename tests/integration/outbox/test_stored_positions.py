"""What is stored of a device only ever grows."""

from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest

from app.core.flight import Limits
from app.core.position import Incarnation, Position
from app.core.snapshot import Snapshot
from app.core.token import Holder, TokenError, decode, encode
from app.outbox.walk import PageSize
from tests.integration.outbox.conftest import StartRig
from tests.integration.outbox.test_receipts import Writing, device_of, stored_position, writing
from tests.support.host import add_user, log_mood, log_moods
from tests.support.postgres import Database
from tests.support.service import until

__all__ = ["writing"]

pytestmark = pytest.mark.every_major

KEEP_HISTORY = """
CREATE TABLE history (id serial, seen text, reading text, after_id bigint);
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    INSERT INTO history (seen, reading, after_id)
    VALUES (NEW.position_seen, NEW.position_reading, NEW.position_after_id);
    RETURN NULL;
END $$;
CREATE TRIGGER keep AFTER UPDATE OF position_seen ON users_devices FOR EACH ROW EXECUTE FUNCTION keep()"""


def snapshot(text: str) -> Snapshot:
    _, xmax, running = text.split(":")
    return Snapshot(int(xmax), frozenset(int(xid) for xid in running.split(",") if xid))


@pytest.mark.parametrize(
    ("stored", "offered", "moves"),
    [
        ("100:100:", "101:101:", True),
        ("100:100:", "100:100:", True),
        ("100:100:", "99:99:", False),
        ("100:100:", "98:105:98", False),
        ("98:100:98", "98:105:98", True),
        ("98:100:98", "100:100:", True),
        ("98:100:98", "99:105:99", False),
        ("90:90: 100:100: 7", "90:90: 100:100: 8", True),
        ("90:90: 100:100: 7", "90:90: 100:100: 6", False),
        ("90:90: 100:100: 7", "100:100:", True),
        ("90:90: 95:100:95 7", "95:100:95 110:110: 2", True),
        ("90:90: 100:100: 7", "95:100:95", False),
        ("90:90: 100:100: 7", "90:90: 110:110: 9", False),
    ],
)
async def test_a_position_that_has_less_than_the_stored_one_is_passed_over(
    host: asyncpg.Connection, writing: Writing, stored: str, offered: str, moves: bool
) -> None:
    """Whatever a connection says; and it is not tried again."""
    device = await device_of(host, "u")
    here = await writing.position()

    def position(text: str) -> Position:
        seen, reading, after_id = (*text.split(" "), None, 0)[:3]
        return replace(
            here,
            seen=snapshot(str(seen)),
            reading=snapshot(str(reading)) if reading else None,
            after_id=int(after_id or 0),
        )

    writing.receipts.move(device, position(stored))
    await writing.written()
    writing.receipts.move(device, position(offered))
    await writing.written()
    assert await stored_position(host, device[0]) == position(offered if moves else stored)


async def test_a_position_of_another_life_of_the_database_is_taken(
    host: asyncpg.Connection, writing: Writing
) -> None:
    """Its transaction ids say nothing beside those of the life before."""
    device = await device_of(host, "u")
    here = await writing.position()
    before = replace(here, seen=Snapshot(here.seen.xmax + 1000), incarnation=Incarnation(7, "00" * 8))
    for position in (before, here):
        writing.receipts.move(device, position)
        await writing.written()
    assert await stored_position(host, device[0]) == here


@pytest.mark.parametrize("number", [1 << 32, (1 << 32) + 1, (1 << 32) + 2, (1 << 32) - 1, 1])
async def test_no_token_brings_a_snapshot_that_the_database_does_not_take(
    host: asyncpg.Connection, number: int
) -> None:
    """One that came to be stored would hold up every receipt of its process."""
    ahead = number + 1 if (number + 1) % (1 << 32) else number + 2
    for position in (Snapshot(number), Snapshot(ahead, frozenset({number}))):
        assert await _is_taken(host, position) == _is_token(position)


async def _is_taken(host: asyncpg.Connection, snapshot: Snapshot) -> bool:
    try:
        await host.fetchval("SELECT $1::text::pg_snapshot::text", str(snapshot))
    except asyncpg.InvalidTextRepresentationError:
        return False
    return True


def _is_token(snapshot: Snapshot) -> bool:
    try:
        decode(
            encode(
                Position(snapshot, datetime(2026, 1, 1, tzinfo=UTC), Incarnation(1, "00" * 8)), Holder("u")
            )
        )
    except TokenError:
        return False
    return True


@pytest.mark.parametrize("transactions", [1, 40])
async def test_a_device_cut_among_rows_that_it_is_owed_again_keeps_what_it_has(
    database: Database, host: asyncpg.Connection, start_rig: StartRig, transactions: int
) -> None:
    """Its position stays where it is or grows, and it gets the rest: nothing confirmed comes twice."""
    rig = await start_rig(database.url, page=PageSize(rows=7), limits=Limits(window=4))
    for _ in range(transactions):
        await log_moods(host, ["u"], 40 // transactions)
    # A device that comes only now: its position has all of that, undelivered as it is.
    await add_user(host, "u")
    await rig.registry.register("u", "u", "ios", None)
    for _ in range(10):
        await log_mood(host, "u")
    await host.execute(KEEP_HISTORY)

    got: list[int] = []
    confirmed: set[int] = set()
    while len(confirmed) < 50:
        peer = await rig.connect_device("u", "u")
        if len(confirmed) < 40:
            await until(lambda peer=peer: len(peer.received) >= 8)
            peer.mute = True
        else:
            await rig.settled(peer)
        await rig.recorded()
        peer.leave()
        assert not confirmed & set(peer.ids)
        assert peer.ids == sorted(peer.ids)
        confirmed = {row[0] for row in await host.fetch("SELECT id FROM realtime_events WHERE delivered")}
        got += peer.ids

    assert len(set(got)) == 50
    written = {row["id"]: row["xid"] for row in await host.fetch("SELECT id, xid FROM realtime_events")}
    covered: set[int] = set()
    for row in await host.fetch("SELECT * FROM history ORDER BY id"):
        position = Position(
            snapshot(row["seen"]),
            None,  # type: ignore[arg-type]
            None,  # type: ignore[arg-type]
            snapshot(row["reading"]) if row["reading"] else None,
            row["after_id"] or 0,
        )
        now_covered = {row_id for row_id, xid in written.items() if position.has(xid, row_id)}
        assert covered <= now_covered
        covered = now_covered
    assert covered == set(written)
