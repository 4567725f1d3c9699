"""Ten thousand tokens that nobody should issue: taken only where signature and claims are good."""

import base64
import hmac
import math
import time
from collections import Counter
from pathlib import Path
from typing import Any

import jwt
import pytest

from app.auth.keys import OneKey, public_key_file, shared_secret
from app.auth.tokens import Tokens
from app.core.identity import Identity, Unauthenticated
from tests.support import issuer
from tests.support.fuzz.jwts import Jwts
from tests.support.issuer import AUDIENCE, SECRET

COUNTS = {"HS256": 7000, "EdDSA": 1500, "ES256": 1000, "RS256": 500}
"""Tokens of each algorithm; signing takes long with some."""
LONGEST = 1.0
"""Seconds for one token; the longest takes some milliseconds."""


@pytest.fixture(params=COUNTS)
def algorithm(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def key(algorithm: str, tmp_path: Path) -> OneKey:
    """As the service gets it."""
    if algorithm == "HS256":
        return shared_secret(SECRET)
    path = tmp_path / "key.pem"
    path.write_bytes(issuer.public_pem(algorithm))
    return public_key_file(path)


async def test_no_token_is_taken_that_is_not_good(algorithm: str, key: OneKey) -> None:
    """By what the library says with the algorithm pinned, and, for the secret, by hand too."""
    tokens, jwts = Tokens(key), Jwts(1, algorithm)
    material = (await key.find(algorithm, None)).material
    told: Counter[str] = Counter()
    for _ in range(COUNTS[algorithm]):
        token = jwts.token()
        before = time.perf_counter()
        said = await outcome(tokens, token)
        if isinstance(said, Identity):
            told["taken"] += 1
            check(said, good(token, material, algorithm))
            assert algorithm != "HS256" or is_signed(token)
        else:
            told[said.message] += 1
            assert (said.code, said.__cause__) == ("unauthorized", None)
        assert time.perf_counter() - before < LONGEST, token

    assert told["taken"] > COUNTS[algorithm] / 20, "the supply is too poor"
    assert len(told) > 5
    assert len(told) < 12, "a refusal says something of the token"


async def test_what_the_library_calls_good_is_taken(algorithm: str, key: OneKey) -> None:
    """Unless it does not say whose it is, or never ends: nobody is refused for nothing."""
    tokens, jwts = Tokens(key), Jwts(2, algorithm)
    material = (await key.find(algorithm, None)).material
    for _ in range(COUNTS[algorithm] // 10):
        token = jwts.token()
        try:
            claims = good(token, material, algorithm)
        except Exception:  # noqa: BLE001 - whatever the library says
            continue
        said = await outcome(tokens, token)
        if isinstance(said, Identity):
            check(said, claims)
        else:
            assert "whose" in said.message or "never expires" in said.message


async def test_one_for_somebody_else_is_not_taken_whatever_else_is_in_it() -> None:
    """The audience in a list with others will do; nothing that only looks like it."""
    tokens, jwts = Tokens(shared_secret(SECRET), audience=AUDIENCE), Jwts(3, "HS256")
    taken = 0
    for _ in range(2000):
        token = jwts.token()
        if isinstance(await outcome(tokens, token), Unauthenticated):
            continue
        taken += 1
        audience = good(token, SECRET.encode(), "HS256", AUDIENCE)["aud"]
        assert AUDIENCE in ([audience] if isinstance(audience, str) else audience)

    assert taken > 5


async def outcome(tokens: Tokens, token: str) -> Identity | Unauthenticated:
    """Whose it is, or how it is refused; anything else that is raised fails the test."""
    try:
        return await tokens.verify(token)
    except Unauthenticated as denied:
        return denied


def good(token: str, material: Any, algorithm: str, audience: str | None = None) -> dict[str, Any]:
    """The claims; raises whatever the library raises for a token that is not good."""
    options: Any = {"require": ["exp"], "verify_sub": False, "verify_jti": False}
    claims: dict[str, Any] = jwt.decode(
        token, material, algorithms=[algorithm], options=options, audience=audience
    )
    return claims


def is_signed(token: str) -> bool:
    """Whether the secret's holder made it, looked at without any library for tokens."""
    unsigned, _, signature = token.rpartition(".")
    given = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    return hmac.compare_digest(given, hmac.new(SECRET.encode(), unsigned.encode(), "sha256").digest())


def check(identity: Identity, claims: dict[str, Any]) -> None:
    """Who somebody is, as everything behind it can take it."""
    assert identity.user_id == str(claims["sub"])
    assert 0 < len(identity.user_id) <= 255
    assert "\0" not in identity.user_id
    assert identity.user_id.encode().decode() == identity.user_id
    assert time.time() - 5 < identity.expires_at < 1e12
    assert identity.issued_at is None or math.isfinite(identity.issued_at)
