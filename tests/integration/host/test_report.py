"""What the host could not arrange is named, with a reason, and nothing breaks."""

import asyncio
import signal
from typing import Any

import pytest
import uvicorn

from app.gateway.uvicorn_host import HostOptions, find_server, install
from app.gateway.uvicorn_host.install import NAMES
from app.gateway.uvicorn_host.report import Capability, HostReport

from .hosted import Hosted, hosted


@pytest.fixture(autouse=True)
def signals() -> Any:
    """Handlers as they were, whatever a test installs."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


async def nothing() -> None:
    pass


class OtherServer(uvicorn.Server):
    """A uvicorn of the future."""


def configured(**changes: object) -> uvicorn.Server:
    server = OtherServer(uvicorn.Config(lambda: None, log_config=None))
    server.config.load()
    for name, value in changes.items():
        setattr(server.config, name, value)
    return server


async def test_under_uvicorn_everything_is_in_place(host: Hosted) -> None:
    """The known version offers all of it."""
    assert host.report.missing == {}
    assert host.report.confirms
    assert {each.name for each in host.report.capabilities} == set(NAMES)
    assert str(host.report).startswith(f"host uvicorn {uvicorn.__version__}: confirmation, ")


async def test_without_uvicorn_everything_is_missing() -> None:
    """Another server is no error."""
    report = install(None, HostOptions(), nothing)
    assert report.missing == dict.fromkeys(NAMES, "not running under uvicorn")
    assert not report.confirms
    assert find_server() is None


async def test_a_websocket_protocol_chosen_by_the_operator_is_left_alone() -> None:
    """`--ws` is an explicit wish."""
    server = configured(ws="wsproto")
    before = server.config.ws_protocol_class
    report = install(server, HostOptions(), nothing)
    assert report.missing == {"confirmation": "uvicorn was told to use --ws wsproto"}
    assert server.config.ws_protocol_class is before


async def test_a_uvicorn_that_has_changed_inside_only_costs_what_has_changed() -> None:
    """The part that does not fit is left as uvicorn made it."""

    class Changed(asyncio.Protocol):
        def __init__(self, **_: object) -> None:
            pass

    server = configured(http_protocol_class=Changed)
    report = install(server, HostOptions(), nothing)
    assert report.missing == {
        "half-open handshakes": "this uvicorn has no connections, cycle, loop, transport",
        "user timeout": "uvicorn's HTTP protocol is as it was",
        "acknowledgements": "uvicorn's HTTP protocol is as it was",
    }
    assert server.config.http_protocol_class is Changed


async def test_a_part_that_fails_in_an_unknown_way_is_reported_and_not_raised() -> None:
    """Whatever a future version raises."""

    class Failing(asyncio.Protocol):
        def __init__(self) -> None:
            pass

    report = install(configured(http_protocol_class=Failing), HostOptions(), nothing)
    assert report.missing["half-open handshakes"].startswith("TypeError: ")


async def test_an_object_that_is_no_server_is_not_taken_for_one() -> None:
    """Only a uvicorn server behind the signal counts, not any bound method."""

    class Unrelated:
        def handle(self, *_: object) -> None:
            pass

    signal.signal(signal.SIGTERM, Unrelated().handle)
    assert find_server() is None
    server = configured()
    signal.signal(signal.SIGTERM, server.handle_exit)
    assert find_server() is server
    del server.should_exit
    assert find_server() is None


async def test_limits_set_by_the_operator_for_the_exit_stay() -> None:
    """Only a missing limit is added: without one uvicorn waits for ever."""
    async with hosted(timeout_graceful_shutdown=7) as one, hosted() as other:
        assert one.server.config.timeout_graceful_shutdown == 7
        assert other.server.config.timeout_graceful_shutdown == 4
        assert one.server.config.ws_per_message_deflate is False


def test_a_report_reads_as_one_line() -> None:
    """For the log."""
    report = HostReport("x 1", (Capability("drain"), Capability("limits", "no such thing")))
    assert str(report) == "host x 1: drain in place; missing: limits (no such thing)"
    assert report.has("drain")
    assert not report.has("limits")
