"""Where a token may stand, and where it is refused."""

import base64

import pytest

from app.auth import credentials
from app.auth.credentials import IN_THE_URL, Ticket
from app.core.identity import BadCredentials

HEAD = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
TOKEN = f"{HEAD}.e30.c2ln"


def of(query: str) -> credentials.Credentials | None:
    """What a request with this query gives."""
    return credentials.find({"query_string": query.encode(), "headers": []}, by_ticket=True)


@pytest.mark.parametrize(
    "query",
    [
        f"token={TOKEN}",
        f"ticket={TOKEN}",
        TOKEN,
        f"x=%20{TOKEN}",
        f"protocol=bearer.{TOKEN}",
        f"authorization=Bearer%20{TOKEN}",
        f"authorization=bearer+{TOKEN}",
        f"Authorization=BEARER%20%20{TOKEN}",
    ],
)
def test_a_token_is_known_by_what_it_is_whatever_stands_before_it(query: str) -> None:
    """Somebody copied a whole header into the URL."""
    with pytest.raises(BadCredentials) as refused:
        of(query)
    assert refused.value is IN_THE_URL


@pytest.mark.parametrize("text", ["a.b.c", "bearer", "bearer.", "1.2.3", f"{TOKEN}.x", "e30.e30.e30"])
def test_other_texts_with_dots_are_no_tokens(text: str) -> None:
    """A user's id may look like anything."""
    assert of(f"user_id={text}&ticket=once") == Ticket("once")
