"""Which tokens are taken, and whose they are."""

import json
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from app.auth.keys import Keys, OneKey, UnusableKey, public_key_file, shared_secret
from app.auth.tokens import LONGEST, Tokens
from app.core.identity import Unauthenticated
from tests.support import issuer
from tests.support.issuer import AUDIENCE, ISSUER, OTHER_SECRET, SECRET

ASYMMETRIC = ("RS256", "ES256", "EdDSA")


@pytest.fixture
def key_file(tmp_path: Path) -> Any:
    """Write the public key for an algorithm to a file."""

    def write(algorithm: str) -> Path:
        path = tmp_path / f"{algorithm}.pem"
        path.write_bytes(issuer.public_pem(algorithm))
        return path

    return write


def verifier(keys: Keys | None = None, **options: Any) -> Tokens:
    return Tokens(keys or shared_secret(SECRET), **options)


def public(key: Any) -> bytes:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


async def refused(tokens: Tokens, token: str) -> str:
    """What is told of a token that is not taken, which never quotes it."""
    with pytest.raises(Unauthenticated) as told:
        await tokens.verify(token)
    assert told.value.code == "unauthorized"
    assert len(token) < 10 or token not in told.value.message
    assert told.value.__cause__ is None
    return told.value.message


async def test_a_token_of_the_shared_secret_says_whose_it_is() -> None:
    """With when it was issued, and when it ends."""
    now = int(time.time())

    identity = await verifier().verify(issuer.token("ada", iat=now, exp=now + 60))

    assert (identity.user_id, identity.issued_at, identity.expires_at) == ("ada", now, now + 60)


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_token_of_each_kind_of_key_file_is_taken(algorithm: str, key_file: Any) -> None:
    """The key says which algorithm it is for."""
    keys = public_key_file(key_file(algorithm))

    assert keys.algorithms == {algorithm}
    assert (await verifier(keys).verify(issuer.signed(algorithm, "ada"))).user_id == "ada"


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_public_key_is_never_taken_for_a_secret(algorithm: str, key_file: Any) -> None:
    """Whoever knows it, and all may, could sign with it otherwise."""
    path = key_file(algorithm)
    pem = path.read_bytes()
    for secret in (pem, pem.strip(), pem.replace(b"\n", b"\r\n")):
        await refused(verifier(public_key_file(path)), issuer.hmac_with(secret, "ada"))


@pytest.mark.parametrize("algorithm", ASYMMETRIC)
async def test_a_secret_takes_no_other_algorithm(algorithm: str) -> None:
    """And no key file one of another kind."""
    assert "signed" in await refused(verifier(), issuer.signed(algorithm, "ada"))


@pytest.mark.parametrize(
    "algorithm", ["none", "None", "NONE", "nOnE", "", "HS384", "HS512", "RS256", None, 7, ["HS256"], {}]
)
async def test_no_algorithm_but_the_key_s_own_is_taken(algorithm: Any) -> None:
    """Least of all none, however it is written."""
    token = issuer.by_hand({"alg": algorithm, "typ": "JWT"}, issuer.claims("ada"))

    await refused(verifier(), token)
    await refused(verifier(), token.rstrip("."))


@pytest.mark.parametrize("algorithm", ["HS384", "HS512"])
async def test_a_good_signature_of_another_algorithm_is_not_taken(algorithm: str) -> None:
    """The secret is right, the algorithm is not."""
    await refused(verifier(), jwt.encode(issuer.claims("ada"), SECRET * 2, algorithm=algorithm))


async def test_keys_in_the_header_are_not_looked_at() -> None:
    """A forger brings a key along, or says where one is."""
    own = issuer.jwk("RS256", "mine", "forger")
    for header in (
        {"jwk": own},
        {"jku": "http://127.0.0.1:1/"},
        {"x5u": "http://127.0.0.1:1/"},
        {"kid": "/dev/null"},
    ):
        forged = issuer.token("ada", key=OTHER_SECRET, headers=header)
        await refused(verifier(), forged)
    await refused(verifier(), issuer.token("ada", headers={"crit": ["exp"], "exp": 1}))
    for kid in (None, 7, ["a"], {}):
        await refused(verifier(), issuer.by_hand({"alg": "HS256", "kid": kid}, issuer.claims("ada")))


@pytest.mark.parametrize(
    ("claims", "told"),
    [
        ({"exp": None}, "has no exp"),
        ({"exp": 1}, "expired"),
        ({"exp": "soon"}, "no token"),
        ({"exp": {}}, "no token"),
        ({"exp": float("inf")}, "no token"),
        ({"exp": float("nan")}, "no token"),
        ({"nbf": 1 << 40}, "not valid yet"),
        ({"iat": 1 << 40}, "not valid yet"),
        ({"iat": "yesterday"}, "no token"),
        ({"iss": "https://elsewhere.example"}, "iss"),
        ({"iss": None}, "iss"),
        ({"aud": "elsewhere"}, "aud"),
        ({"aud": ["elsewhere"]}, "aud"),
        ({"aud": None}, "aud"),
        ({"aud": 7}, "aud"),
        ({"sub": None}, "whose"),
        ({"sub": ""}, "whose"),
        ({"sub": "x" * 256}, "whose"),
        ({"sub": "a\x00b"}, "whose"),
        ({"sub": ["ada"]}, "whose"),
        ({"sub": True}, "whose"),
    ],
    ids=str,
)
async def test_what_a_token_must_say(claims: dict[str, Any], told: str) -> None:
    """A signed token that says the wrong thing is told what."""
    tokens = verifier(issuer=ISSUER, audience=AUDIENCE)
    good = {"iss": ISSUER, "aud": AUDIENCE}
    assert (await tokens.verify(issuer.token("ada", **good))).user_id == "ada"

    said = {"sub": "ada", **good, **claims}
    payload = issuer.claims(said.pop("sub"), **said)
    assert told in await refused(tokens, jwt.api_jws.encode(json.dumps(payload).encode(), SECRET, "HS256"))


async def test_an_audience_that_nobody_looks_for_is_refused() -> None:
    """Such a token was made for another service (RFC 7519, section 4.1.3)."""
    assert "aud" in await refused(verifier(), issuer.token("ada", aud="elsewhere"))


async def test_another_claim_may_say_whose_it_is() -> None:
    """A number is a user's id too."""
    tokens = verifier(user_claim="uid")

    assert (await tokens.verify(issuer.token("not me", uid="ada"))).user_id == "ada"
    assert (await tokens.verify(issuer.token("not me", uid=42))).user_id == "42"
    await refused(tokens, issuer.token("ada"))


async def test_the_leeway_is_for_clocks_that_differ() -> None:
    """Both ways, and no further."""
    now = int(time.time())
    tokens = verifier(leeway=30)

    identity = await tokens.verify(issuer.token("ada", exp=now - 10))
    assert identity.expires_at == now - 10 + 30
    await tokens.verify(issuer.token("ada", iat=now + 10, nbf=now + 10))
    await refused(tokens, issuer.token("ada", exp=now - 40))
    await refused(tokens, issuer.token("ada", nbf=now + 60))


async def test_no_change_of_a_token_goes_unnoticed() -> None:
    """Neither in what it says nor in its signature."""
    tokens = verifier()
    good = issuer.token("ada")
    head, payload, signature = good.split(".")
    other = issuer.token("bob").split(".")[1]

    for bad in (
        f"{head}.{other}.{signature}",
        f"{head}.{payload}.",
        f"{head}.{payload}",
        f"{head}.{payload}.{signature[:-4]}AAAA",
        f"{good}.{signature}",
        f"{good}A",
        good.upper(),
        issuer.token("ada", key=OTHER_SECRET),
        "x" * (LONGEST + 1),
    ):
        await refused(tokens, bad)


@settings(max_examples=1000, deadline=None)
@given(
    st.text()
    | st.builds(
        issuer.by_hand,
        st.dictionaries(
            st.sampled_from(["alg", "typ", "kid", "crit", "b64", "zip"]),
            st.sampled_from(["HS256", "none", None, 0, [], {}, False, "\x00"]),
        )
        | st.binary(),
        st.dictionaries(st.sampled_from(["sub", "exp", "iat", "aud"]), st.integers() | st.text() | st.none())
        | st.binary(),
        st.binary(),
    )
)
def test_no_forged_token_is_taken_and_none_makes_it_fail(token: str) -> None:
    """Whatever it is, the answer is the same refusal."""
    tokens = verifier()
    coroutine = tokens.verify(token)
    with pytest.raises(Unauthenticated):
        coroutine.send(None)


class TestKeys:
    def test_a_secret_that_can_be_guessed_is_refused(self) -> None:
        """HS256 needs as many bytes as its hash has."""
        with pytest.raises(UnusableKey, match="32"):
            shared_secret("x" * 31)
        with pytest.raises(UnusableKey):
            shared_secret("")
        assert isinstance(shared_secret("x" * 32), OneKey)

    def test_a_key_in_the_place_of_a_secret_is_refused(self) -> None:
        """Else everybody who has the public key could sign."""
        with pytest.raises(UnusableKey, match="JWT_PUBLIC_KEY_FILE"):
            shared_secret(issuer.public_pem("RS256").decode())

    def test_a_file_must_hold_a_public_key_that_is_strong_enough(self, tmp_path: Path) -> None:
        """It is told what is wrong, and nothing of the key."""
        path = tmp_path / "key.pem"
        for content, told in (
            (issuer.private_pem("RS256"), "private"),
            (b"nonsense", "no public key"),
            (public(rsa.generate_private_key(65537, 1024)), "short"),
            (public(ec.generate_private_key(ec.SECP384R1())), "P-256"),
        ):
            path.write_bytes(content)
            with pytest.raises(UnusableKey, match=told):
                public_key_file(path)
        with pytest.raises(UnusableKey, match="cannot be read"):
            public_key_file(tmp_path / "absent.pem")

    def test_what_holds_a_key_does_not_show_it(self) -> None:
        """Neither in a log line nor in a traceback."""
        key = shared_secret(SECRET)

        assert SECRET not in repr(key._key)
