"""Which addresses are counted, and as what."""

import pytest

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
