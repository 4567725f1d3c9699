"""The keys of an issuer who publishes them: fetched seldom, kept when nobody answers, never waited for long."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from app.auth.jwks import LARGEST, Jwks, read
from app.auth.keys import UnknownKey
from app.auth.tokens import Tokens
from app.core.identity import Unauthenticated
from app.core.reads import Unavailable
from tests.support import issuer
from tests.support.key_server import KeyServer, key_server

NEVER = 3600.0


@asynccontextmanager
async def fetching(
    server: KeyServer, *, cooldown: float = NEVER, patience: float = 30.0
) -> AsyncIterator[Jwks]:
    jwks = Jwks(server.url, max_age=NEVER, cooldown=cooldown, timeout=patience)
    try:
        yield jwks
    finally:
        await jwks.close()


@pytest.mark.parametrize("algorithm", ["RS256", "ES256", "EdDSA"])
async def test_a_token_is_verified_with_the_key_that_it_names(algorithm: str) -> None:
    """Each key for its own algorithm, whatever the token would like."""
    keys = [issuer.jwk(each, f"kid of {each}") for each in ("RS256", "ES256", "EdDSA")]
    async with key_server(*keys) as server, fetching(server) as jwks:
        tokens = Tokens(jwks)

        good = issuer.signed(algorithm, "ada", kid=f"kid of {algorithm}")
        assert (await tokens.verify(good)).user_id == "ada"
        assert (await tokens.verify(issuer.signed(algorithm, "ada"))).user_id == "ada"
        other = "ES256" if algorithm == "RS256" else "RS256"
        for bad in (
            issuer.signed(algorithm, "ada", kid=f"kid of {other}"),
            issuer.signed(algorithm, "ada", name="another", kid=f"kid of {algorithm}"),
            issuer.hmac_with(issuer.public_pem(algorithm), "ada"),
            issuer.by_hand({"alg": "none", "kid": f"kid of {algorithm}"}, issuer.claims("ada")),
        ):
            with pytest.raises(Unauthenticated):
                await tokens.verify(bad)
        assert server.asked == 1


async def test_a_key_that_is_new_is_fetched_when_a_token_names_it() -> None:
    """The issuer has rotated; nobody told us."""
    async with key_server(issuer.jwk("ES256", "old")) as server, fetching(server, cooldown=0) as jwks:
        tokens = Tokens(jwks)
        await tokens.verify(issuer.signed("ES256", "ada", kid="old"))
        server.keys = [issuer.jwk("ES256", "new", "new")]

        assert (await tokens.verify(issuer.signed("ES256", "ada", name="new", kid="new"))).user_id == "ada"
        with pytest.raises(Unauthenticated):
            await tokens.verify(issuer.signed("ES256", "ada", kid="old"))


async def test_unknown_keys_make_nobody_ask_more_often_than_stated() -> None:
    """Whoever sends hostile tokens would have us besiege the issuer."""
    async with key_server(issuer.jwk("ES256", "known")) as server, fetching(server) as jwks:
        await jwks.find("ES256", "known")

        for number in range(100):
            with pytest.raises(UnknownKey):
                await jwks.find("ES256", f"unknown {number}")

        assert (server.asked, jwks.fetches) == (1, 1)


async def test_all_who_wait_wait_for_one_fetch() -> None:
    """And whoever gives up does not take it from the others."""
    async with key_server(issuer.jwk("ES256", "a")) as server, fetching(server) as jwks:
        server.may_answer.clear()
        waiting = [asyncio.create_task(jwks.find("ES256", "a")) for _ in range(20)]
        await server.arrived.wait()
        waiting[0].cancel()
        server.may_answer.set()

        results = await asyncio.gather(*waiting, return_exceptions=True)

        assert isinstance(results[0], asyncio.CancelledError)
        assert all(getattr(one, "algorithm", None) == "ES256" for one in results[1:])
        assert server.asked == 1


async def test_the_old_keys_go_on_while_the_server_is_away() -> None:
    """Health tells; a token of a key that is not known is not judged until somebody can be asked."""
    async with key_server(issuer.jwk("ES256", "a")) as server, fetching(server, cooldown=0) as jwks:
        await jwks.find("ES256", "a")
        assert jwks.state().reasons == ()
        await server.stop()

        with pytest.raises(Unavailable):
            await jwks.find("ES256", "b")
        assert (await jwks.find("ES256", "a")).algorithm == "ES256"
        assert "cannot be fetched" in jwks.state().reasons[0]
        assert jwks.state().details["keys"] == 1

        await server.start()
        with pytest.raises(UnknownKey):
            await jwks.find("ES256", "b")
        assert jwks.state().reasons == ()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        ("500 Oops", b'{"keys":[]}'),
        ("302 Found", None),
        ("200 OK", b"<html>"),
        ("200 OK", b"[]"),
        ("200 OK", b'{"keys":{}}'),
        ("200 OK", b'{"keys":[]}'),
        ("200 OK", b"[" * 100_000),
        ("200 OK", b" " * (LARGEST + 1)),
    ],
    ids=lambda value: str(value)[:20],
)
async def test_an_odd_answer_takes_no_key_away(status: str, body: bytes | None) -> None:
    """A proxy's page of error, a redirection, an empty list: the keys there are go on."""
    async with key_server(issuer.jwk("ES256", "a")) as server, fetching(server, cooldown=0) as jwks:
        await jwks.find("ES256", "a")
        server.status, server.body = status, body

        with pytest.raises(Unavailable):
            await jwks.find("ES256", "b")
        assert (await jwks.find("ES256", "a")).algorithm == "ES256"


async def test_a_server_that_does_not_answer_is_given_up() -> None:
    """After the deadline, and meanwhile the loop goes on with everything else."""
    async with key_server(issuer.jwk("ES256", "a")) as server, fetching(server, patience=0.2) as jwks:
        server.may_answer.clear()
        asking = asyncio.create_task(jwks.find("ES256", "a"))
        await server.arrived.wait()

        with pytest.raises(Unavailable):
            await asking
        assert jwks.state().reasons


async def test_keys_are_fetched_at_the_start_and_again_when_they_are_old() -> None:
    """And soon again after a failure; the part ends when it is stopped."""
    async with key_server(issuer.jwk("ES256", "a")) as server:
        jwks = Jwks(server.url, max_age=0.01, cooldown=0.01)
        running = asyncio.create_task(jwks.run())
        async with asyncio.timeout(30):
            while server.asked < 3:
                server.arrived.clear()
                await server.arrived.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        await jwks.close()


def octets(secret: bytes) -> str:
    return base64.urlsafe_b64encode(secret).rstrip(b"=").decode()


def test_keys_of_other_kinds_and_uses_are_passed_over() -> None:
    """A shared secret in a set that all may read is none; what cannot be read harms nothing else."""
    odd: list[Any] = [
        {"kty": "oct", "kid": "a", "k": octets(b"x" * 32)},
        issuer.jwk("RS256", "b", use="enc"),
        issuer.jwk("RS256", "c", alg="RS512"),
        {**issuer.jwk("RS256", "d"), "d": "AQAB"},
        {**issuer.jwk("ES256", "e"), "x": "!!!"},
        {**issuer.jwk("RS256", "f"), "n": octets(b"\x01" * 64)},
        {**issuer.jwk("RS256", "g"), "kid": 7},
        {"kty": "magic"},
        {},
        None,
        "key",
    ]
    good = issuer.jwk("EdDSA", "good", use="sig", alg="EdDSA")

    found = read(json.dumps({"keys": [*odd, good]}).encode())

    assert [(kid, key.algorithm) for kid, key in found] == [("good", "EdDSA")]
    with pytest.raises(ValueError, match="no key"):
        read(json.dumps({"keys": odd}).encode())


async def test_a_token_that_names_no_key_gets_one_only_where_there_is_no_choice() -> None:
    """Of two it cannot be told which one it means."""
    keys = issuer.jwk("ES256", "a"), issuer.jwk("ES256", "b", "b")
    async with key_server(*keys) as server, fetching(server) as jwks:
        with pytest.raises(UnknownKey):
            await jwks.find("ES256", None)
