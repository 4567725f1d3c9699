"""Where somebody may give a token, and where not."""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qsl

from app.core.identity import BadCredentials

Scope = Mapping[str, Any]

SUBPROTOCOL_PREFIX = "bearer."
COOKIE = "mindvibe_ticket"
_AS_SENT_ELSEWHERE = re.compile(r"^bearer[.\s]\s*", re.IGNORECASE)
"""What stands before a token in a header."""

IN_THE_URL = BadCredentials(
    "token_in_url",
    "Never put a token into a URL, where logs and histories keep it: send it as `Authorization: Bearer …`, as"
    " the WebSocket subprotocols mindvibe.v1 and bearer.…, or get a ticket from POST /realtime/tickets.",
)
ONE_ONLY = BadCredentials("malformed", "Give one token or ticket, and give it once.")
TOO_MANY_PARAMETERS = BadCredentials("malformed", "The URL has more parameters than are looked at.")
NO_BEARER = BadCredentials("malformed", "The header has to be `Authorization: Bearer` and a token.")


@dataclass(frozen=True, slots=True)
class Bearer:
    """A token, as somebody sent it."""

    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Ticket:
    """A ticket, to be used once."""

    text: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Cookie:
    """A ticket that a browser keeps."""

    text: str = field(repr=False)


Credentials = Bearer | Ticket | Cookie


def find(scope: Scope, *, by_ticket: bool = False, by_cookie: bool = False) -> Credentials | None:
    """What an ASGI scope says of who asks; a ticket or a cookie counts where it will do.

    A cookie is sent by the browser itself, and counts when nothing else is given. Raises BadCredentials.
    """
    tickets = _tickets(scope)
    given: list[Credentials] = [Bearer(token) for token in (*bearers(scope), *_subprotocols(scope))]
    if by_ticket:
        given += [Ticket(text) for text in tickets]
    if len(given) > 1:
        raise ONE_ONLY
    if given:
        return given[0]
    return _cookie(scope) if by_cookie else None


def bearers(scope: Scope) -> list[str]:
    """The tokens of the Authorization headers; raises BadCredentials for any other kind."""
    tokens = []
    for value in _headers(scope, b"authorization"):
        kind, _, token = value.strip().partition(" ")
        if kind.lower() != "bearer" or not token.strip():
            raise NO_BEARER
        tokens.append(token.strip())
    return tokens


def _tickets(scope: Scope) -> list[str]:
    try:
        pairs = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise TOO_MANY_PARAMETERS from None
    if any(_looks_like_a_token(text) for pair in pairs for text in pair):
        raise IN_THE_URL
    return [value for name, value in pairs if name == "ticket"]


def _looks_like_a_token(text: str) -> bool:
    """Whether this is a JWT, whatever it is called: three parts, the first of them a JSON object with alg."""
    parts = _AS_SENT_ELSEWHERE.sub("", text.strip()).split(".")
    if len(parts) != 3 or not parts[0]:
        return False
    try:
        head = json.loads(base64.urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return False
    return isinstance(head, dict) and "alg" in head


def _subprotocols(scope: Scope) -> list[str]:
    offered = scope.get("subprotocols", ())
    return [one.removeprefix(SUBPROTOCOL_PREFIX) for one in offered if one.startswith(SUBPROTOCOL_PREFIX)]


def _cookie(scope: Scope) -> Cookie | None:
    for value in _headers(scope, b"cookie"):
        try:
            found = SimpleCookie(value).get(COOKIE)
        except CookieError:
            continue
        if found is not None:
            return Cookie(found.value)
    return None


def _headers(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]
