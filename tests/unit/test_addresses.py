"""Which addresses are counted, and as what."""

import pytest

from app.core.addresses import PEER, is_loopback, peer_of, trusts_everybody
from app.gateway.addresses import counted_as


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("8.8.4.4", "8.8.4.4"),
        ("::ffff:8.8.4.4", "8.8.4.4"),
        ("2a00:1450:4001:82a::200e", "2a00:1450:4001:82a::/64"),
        ("2a00:1450:4001:82a:ffff::1", "2a00:1450:4001:82a::/64"),
        ("2a00:1450:4001:82b::1", "2a00:1450:4001:82b::/64"),
        ("somebody", "unknown"),
        ("", "unknown"),
    ],
)
def test_a_public_address_is_counted(host: str, name: str) -> None:
    """IPv6 by what one customer has; what is no address all together."""
    assert counted_as({"client": (host, 0)}) == name


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "10.1.2.3", "172.17.0.1", "192.168.0.7", "100.64.0.1", "169.254.1.1"),
        *("::1", "fd00::1", "fe80::1", "fe80::1%eth0", "::ffff:10.0.0.1"),
    ],
)
def test_a_private_address_is_not(host: str) -> None:
    """A proxy's own, or an office's: everybody may be behind it."""
    assert counted_as({"client": (host, 1234)}) is None


def test_a_socket_without_an_address_is_not() -> None:
    """A Unix socket: the client is a proxy beside us."""
    assert counted_as({"client": None}) is None
    assert counted_as({}) is None


def test_the_peer_is_who_it_is_whatever_a_proxy_says_of_the_client() -> None:
    """And the client where the server tells of no peer; nobody on a Unix socket."""
    claimed = {"client": ("127.0.0.1", 1), "extensions": {PEER: ("10.0.0.7", 2)}}

    assert peer_of(claimed) == "10.0.0.7"
    assert peer_of({"client": ("10.0.0.8", 1), "extensions": {}}) == "10.0.0.8"
    assert peer_of({"client": ("127.0.0.1", 1), "extensions": {PEER: None}}) is None
    assert peer_of({"client": None}) is None


@pytest.mark.parametrize(
    ("host", "is_one"),
    [("127.8.9.10", True), ("::1", True), ("::ffff:127.0.0.1", True), ("localhost", False), (None, False)],
)
def test_the_machine_itself_is_known_by_its_addresses(host: str | None, is_one: bool) -> None:
    """A name is none: whoever resolves it decides."""
    assert is_loopback(host) is is_one


@pytest.mark.parametrize(
    ("trusted", "everybody"),
    [
        *(("*", True), ("10.0.0.1, *", True), ("0.0.0.0/0", True), ("10.0.0.0/8,::/0", True)),
        *(("", False), ("127.0.0.1,::1", False), ("10.0.0.0/8", False)),
    ],
)
def test_a_list_of_proxies_may_hold_everybody(trusted: str, everybody: bool) -> None:
    """However that is written."""
    assert trusts_everybody(trusted) is everybody
