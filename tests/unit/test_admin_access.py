"""Who is taken for an operator while there is no authentication."""

import pytest
from starlette.datastructures import Headers

from app.admin.access import why_not

HERE = {"host": "localhost:8002"}


@pytest.mark.parametrize("peer", ["127.0.0.1", "127.8.9.10", "::1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("host", ["localhost:8002", "localhost", "127.0.0.1:8002", "[::1]:8002", "LOCALHOST"])
def test_a_command_on_this_machine_is_an_operators(peer: str, host: str) -> None:
    """By any loopback address, of either family."""
    assert why_not(peer, Headers({"host": host, "accept": "*/*"})) is None


@pytest.mark.parametrize(
    "peer", [None, "", "10.0.0.7", "::ffff:10.0.0.7", "fe80::1", "testclient", "127.0.0.1.evil"]
)
def test_another_machine_is_refused(peer: str | None) -> None:
    """And whoever cannot be told to be on this one."""
    assert "another machine" in (why_not(peer, Headers(HERE)) or "")


@pytest.mark.parametrize(
    "name", ["X-Forwarded-For", "x-forwarded-for", "Forwarded", "X-Real-IP", "X-Forwarded-Proto", "Via"]
)
@pytest.mark.parametrize("value", ["127.0.0.1", ""])
def test_what_a_proxy_forwarded_is_refused(name: str, value: str) -> None:
    """Whatever the header says: it can be forged, and the proxy is on this machine."""
    assert name.lower() in (why_not("127.0.0.1", Headers(HERE | {name: value})) or "")


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example:8002"},
        {"host": "localhost.evil.example"},
        {"host": ""},
    ],
)
def test_a_page_in_a_browser_is_refused(headers: dict[str, str]) -> None:
    """It runs on this machine too; also under a name of its own that leads to it."""
    assert why_not("127.0.0.1", Headers(HERE | headers)) is not None
