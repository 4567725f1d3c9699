"""Tokens that look right and are not: each is refused on the socket and over HTTP, and nobody is asked about it."""

import time
from collections.abc import Callable
from typing import Any

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_public_key

from tests.e2e.adversary.conftest import ALGORITHM, good
from tests.e2e.conftest import StartServer
from tests.support import host as app
from tests.support import issuer
from tests.support.client import open_client
from tests.support.issuer import AUDIENCE, ISSUER
from tests.support.key_server import key_server
from tests.support.postgres import Database
from tests.support.server import Server

MINE = {"iss": ISSUER, "aud": AUDIENCE}
PEM = issuer.public_pem(ALGORITHM)
DER = load_pem_public_key(PEM).public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)

KIDS: dict[str, Any] = {
    "path": "../../../../../dev/null",
    "absolute path": "/dev/null",
    "URL": "https://evil.example/jwks.json",
    "SQL": "x' UNION SELECT 'secret'; DROP TABLE realtime_events; --",
    "command": "key.pem;sleep 5|",
    "huge": "k" * 5000,
    "empty": "",
    "NUL and line ends": "a\x00b\r\nINFO: forged",
    "number": 7,
    "list": ["a"],
    "object": {"$ne": ""},
    "true": True,
}


def of_another_key(user: str, header: dict[str, Any]) -> str:
    """A token whose header is the forger's to write; signed, but with a key of his own."""
    whole = issuer.by_hand({"alg": ALGORITHM, "typ": "JWT", **header}, issuer.claims(user, **MINE))
    unsigned = whole.rpartition(".")[0]
    key = issuer.private_key(ALGORITHM, "forger")
    signature = jwt.get_algorithm_by_name(ALGORITHM).sign(unsigned.encode(), key)  # type: ignore[arg-type]
    return f"{unsigned}.{jwt.utils.base64url_encode(signature).decode()}"


def with_the_signature_of(user: str, header: dict[str, Any]) -> str:
    """Another header and another user before the signature of a good token."""
    theirs = good("eve")["Authorization"].rpartition(".")[2]
    unsigned = issuer.by_hand(header, issuer.claims(user, **MINE)).rpartition(".")[0]
    return f"{unsigned}.{theirs}"


def signed(user: str, **other: Any) -> str:
    return issuer.signed(ALGORITHM, user, **{**MINE, **other})


def hmac_signed(key: bytes) -> Callable[[str], str]:
    return lambda user: issuer.hmac_with(key, user)


FORGED: dict[str, Callable[[str], str]] = {
    "no signature": lambda user: issuer.by_hand({"alg": "none"}, issuer.claims(user, **MINE)),
    "no signature, in capitals": lambda user: issuer.by_hand({"alg": "NoNe"}, issuer.claims(user, **MINE)),
    "no algorithm": lambda user: issuer.by_hand({"typ": "JWT"}, issuer.claims(user, **MINE)),
    "an empty signature": lambda user: issuer.by_hand({"alg": ALGORITHM}, issuer.claims(user, **MINE)),
    "the public key as a secret": hmac_signed(PEM),
    "the same without its last line end": hmac_signed(PEM.strip()),
    "the same in DER": hmac_signed(DER),
    "no secret": hmac_signed(b""),
    "the signature of another token": lambda user: with_the_signature_of(user, {"alg": ALGORITHM}),
    "the same under another algorithm": lambda user: with_the_signature_of(user, {"alg": "PS256"}),
    "the forger's key in the header": lambda user: of_another_key(
        user, {"jwk": issuer.jwk(ALGORITHM, "forger", "forger")}
    ),
    "a critical header nobody knows": lambda user: of_another_key(user, {"crit": ["b64"], "b64": False}),
    "expired": lambda user: signed(user, exp=int(time.time()) - 60),
    "not valid yet": lambda user: signed(user, nbf=int(time.time()) + 60),
    "issued tomorrow": lambda user: signed(user, iat=int(time.time()) + 86400),
    "for another service": lambda user: signed(user, aud=["billing", "chat"]),
    "for one that is called nearly so": lambda user: signed(user, aud=AUDIENCE.upper()),
    "of another issuer": lambda user: signed(user, iss=ISSUER + "/"),
    **{
        f"kid: {name}": lambda user, kid=kid: of_another_key(user, {"kid": kid})  # type: ignore[misc]
        for name, kid in KIDS.items()
    },
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED.keys())
async def test_a_forged_token_is_nobody_s(
    server: Server, host: asyncpg.Connection, forge: Callable[[str], str]
) -> None:
    """4401 and 401, and a text that neither repeats it nor says which keys there are."""
    user = await app.add_user(host)
    token = forge(user)

    assert await refusal(server, token, user_id=user) == 4401
    answer = await server.request("GET", "/realtime/devices", headers={"Authorization": f"Bearer {token}"})

    assert answer.status_code == 401
    assert token not in server.log
    assert token not in answer.text
    assert "forged" not in server.log


async def refusal(server: Server, token: str, **query: str) -> int:
    """Connect with a token that is refused; returns the close code."""
    client = await open_client(server.address, {"Authorization": f"Bearer {token}"}, **query)
    code = await client.ended()
    assert [message["type"] for message in client.messages] == ["error"]
    return code


async def test_hostile_key_ids_make_nobody_besiege_the_issuer(
    house: Database, host: asyncpg.Connection, start_server: StartServer
) -> None:
    """Each is refused, where a token may name a key too; and the issuer is asked no more often than stated."""
    cooldown = 0.5
    user = await app.add_user(host)
    async with key_server(issuer.jwk(ALGORITHM, "known")) as issuers, key_server() as forgers:
        server = start_server(house.url, jwt_jwks_url=issuers.url, jwks_cooldown=cooldown)
        await server.ready()
        began = time.monotonic()
        for kid in [*KIDS.values(), *(f"made up {number}" for number in range(30))]:
            elsewhere = {"kid": kid, "jku": forgers.url, "x5u": forgers.url}
            assert await refusal(server, of_another_key(user, elsewhere), user_id=user) == 4401
        took = time.monotonic() - began
        known = {"Authorization": f"Bearer {issuer.signed(ALGORITHM, user, kid='known')}"}

        assert (await server.request("GET", "/realtime/devices", headers=known)).status_code == 200
        assert issuers.asked <= 2 + took / cooldown
        assert forgers.asked == 0
