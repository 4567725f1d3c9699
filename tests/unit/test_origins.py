"""Which pages may connect."""

import pytest

from app.gateway.origins import Origins


def admitted(
    origins: Origins, *named: str, host: tuple[str, ...] = ("api.example",), scheme: str = "ws"
) -> bool:
    headers = [(b"host", one.encode()) for one in host] + [(b"origin", one.encode()) for one in named]
    return origins.admit({"type": "websocket", "scheme": scheme, "headers": headers})


LISTED = Origins.parse("https://App.Example, https://www.example:443 http://localhost:5173")


@pytest.mark.parametrize(
    "origin",
    [
        *("https://app.example", "https://APP.example:443", "https://www.example", "http://localhost:5173"),
        *("https://api.example", "https://api.example:443", "http://api.example", "http://api.example:80"),
    ],
)
def test_listed_pages_and_those_of_this_address_may(origin: str) -> None:
    """Whatever the letters' case, and with the usual port or without."""
    assert admitted(LISTED, origin)


@pytest.mark.parametrize(
    "origin",
    [
        *("http://app.example", "https://app.example:8443", "https://app.example.evil", "https://evil"),
        *(
            "https://api.example:8443",
            "https://api.example.evil",
            "https://evilapi.example",
            "ftp://api.example",
        ),
        *("null", "", "*", "https://app.example/", "https://app.example, https://evil", "://", "https://"),
    ],
)
def test_others_may_not(origin: str) -> None:
    """Another scheme, port or host, an origin that is none, and whatever only looks alike."""
    assert not admitted(LISTED, origin)


def test_whoever_names_no_origin_is_no_page() -> None:
    """Apps, programs, and a page that asks where it comes from."""
    assert admitted(LISTED)
    assert admitted(Origins())


def test_two_origins_are_none() -> None:
    """A browser sends one."""
    assert not admitted(LISTED, "https://app.example", "https://app.example")


def test_a_page_without_tls_may_not_ask_what_is_served_with_it() -> None:
    """Whoever is on the way could have written that page."""
    assert not admitted(Origins(), "http://api.example", scheme="wss")
    assert admitted(Origins(), "https://api.example", scheme="wss")
    assert admitted(Origins(), "https://api.example", scheme="ws")


def test_this_address_has_to_be_one() -> None:
    """Two Host headers, or none, are nobody's address."""
    assert not admitted(Origins(), "https://api.example", host=("api.example", "api.example"))
    assert not admitted(Origins(), "https://api.example", host=())


def test_anyone_is_anyone() -> None:
    """While nobody has to say who they are."""
    assert admitted(Origins.parse(" * "), "https://evil")


@pytest.mark.parametrize(
    "text", ["", " ", "app.example", "https://app.example/", "*,https://a", "https://*.a"]
)
def test_what_is_no_list_of_origins_is_refused(text: str) -> None:
    """With a word on what is expected."""
    with pytest.raises(ValueError, match="ALLOWED_ORIGINS"):
        Origins.parse(text)
