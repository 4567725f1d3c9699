"""How frames reach a transport: those of one row together, and before whoever sent them goes on."""

import asyncio
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from app.core.flight import Limits, Pace
from app.core.messages import Message
from app.core.position import Incarnation, Pass
from app.core.snapshot import Snapshot
from app.gateway.connection import Connection, Surroundings
from app.gateway.hub import Hub
from app.gateway.uvicorn_host.live import LiveSocket, SocketHost
from app.gateway.wheel import Wheel

XID = 7
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SO_FAR = Pass(Snapshot(XID), NOW, Snapshot(XID), NOW, Incarnation(1, "00" * 8))
NEXT = SO_FAR._replace(reading=Snapshot(XID + 1))
PING = b"\x89\x04"


class Wire:
    """A transport that takes everything, or nothing once it is broken."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_broken = self.aborted = False

    def write(self, data: bytes) -> None:
        if self.is_broken:
            raise OSError("no")
        self.writes.append(data)

    def abort(self) -> None:
        self.aborted = True
        raise OSError("nor that")

    def is_closing(self) -> bool:
        return False


class Nothing:
    """An archive that no read is performed on."""

    def reader(self, *_: Any, **__: Any) -> None:
        return None


@pytest.fixture
def wire() -> Wire:
    return Wire()


@pytest.fixture
async def hub(wire: Wire) -> Hub:
    """A connection of the user `anna`, live, on this wire."""
    hub = Hub()
    connect(hub, wire)
    return hub


def connect(hub: Hub, wire: Wire) -> None:
    """One more connection of hers, live, on a wire of its own."""
    loop = asyncio.get_running_loop()
    surroundings = Surroundings(
        cast("Any", Nothing()), cast("Any", None), Limits(), Pace(), Wheel(loop), lambda: None, hub.remove
    )
    host = SocketHost(loop, connections=set(), message_size=1 << 16, high_water=1 << 16, close_timeout=1.0)
    LiveSocket(host, cast("Any", wire), lambda socket: _registered(hub, socket, surroundings))
    session = hub.everyone()[-1].session
    session.open(loop.time())
    session.begin_read(SO_FAR)
    session.page([], more=False, now=loop.time())


def _registered(hub: Hub, socket: LiveSocket, surroundings: Surroundings) -> Connection:
    connection = Connection(hub.count + 1, "anna", None, socket, surroundings)
    hub.add(connection)
    return connection


async def test_a_row_and_its_ping_are_one_write_made_before_the_tail_goes_on(hub: Hub, wire: Wire) -> None:
    """A turn of the loop later other work may come first."""
    rows = [Message(1, XID, b"one", 0), Message(2, XID, b"two", 0)]

    hub.route("anna", rows, NEXT)

    [written] = wire.writes
    assert written.startswith(b"\x81\x03one\x81\x03two" + PING)


async def test_what_was_written_is_not_written_again(hub: Hub, wire: Wire) -> None:
    """Also when there is nothing else to write."""
    hub.route("anna", [Message(1, XID, b"one", 0)], NEXT)

    hub.everyone()[0].read_again()

    assert len(wire.writes) == 1


async def test_a_client_is_told_of_the_end_at_once(hub: Hub, wire: Wire) -> None:
    """`leave` is no action of the session."""
    connection = hub.everyone()[0]
    connection._greeting.is_said = True

    connection.leave(1200)

    assert wire.writes == [b'\x81\x24{"type":"reconnect","after_ms":1200}']


async def test_one_that_cannot_be_written_to_is_dropped_and_whoever_goes_through_all_goes_on(
    hub: Hub, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """The tail routes to many connections, and a stopping process takes leave of all."""
    connection = hub.everyone()[0]
    connection._greeting.is_said = True
    wire.is_broken = True

    connection.leave(1200)

    assert wire.aborted
    assert "a connection could not be written to" in caplog.text


async def test_ones_fault_does_not_reach_the_others(
    hub: Hub, wire: Wire, caplog: pytest.LogCaptureFixture
) -> None:
    """It is dropped, even if that fails as well."""
    beside = Wire()
    connect(hub, beside)
    hub.everyone()[0]._session = cast("Any", None)

    hub.route("anna", [Message(1, XID, b"one", 0)], NEXT)

    assert wire.aborted
    assert "connection 1 failed" in caplog.text
    assert len(beside.writes) == 1
    assert not beside.aborted
