"""Whoever issues the tokens: keys of every kind, made for this run, and tokens good and bad."""

import base64
import hashlib
import hmac
import json
import time
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

SECRET = "a secret of this test that is long enough"
OTHER_SECRET = "another secret that nobody here knows of"
ISSUER = "https://issuer.example"
AUDIENCE = "realtime"

PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
_KINDS: dict[str, Any] = {
    "RS256": jwt.algorithms.RSAAlgorithm,
    "ES256": jwt.algorithms.ECAlgorithm,
    "EdDSA": jwt.algorithms.OKPAlgorithm,
}


@cache
def private_key(algorithm: str, name: str = "") -> PrivateKey:
    """A key for an algorithm; another one for each name."""
    match algorithm:
        case "RS256":
            return rsa.generate_private_key(65537, 2048)
        case "ES256":
            return ec.generate_private_key(ec.SECP256R1())
        case _:
            return ed25519.Ed25519PrivateKey.generate()


def public_pem(algorithm: str, name: str = "") -> bytes:
    """The public half, in PEM."""
    key = private_key(algorithm, name).public_key()
    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def private_pem(algorithm: str, name: str = "") -> bytes:
    """The whole key, in PEM."""
    return private_key(algorithm, name).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk(algorithm: str, kid: str | None, name: str = "", **other: Any) -> dict[str, Any]:
    """The public half as a key server publishes it."""
    published = json.loads(_KINDS[algorithm].to_jwk(private_key(algorithm, name).public_key()))
    return {**published, **({} if kid is None else {"kid": kid}), **other}


def claims(user_id: str, **other: Any) -> dict[str, Any]:
    """What a good token says; `None` leaves a claim out."""
    now = int(time.time())
    said = {"sub": user_id, "iat": now, "exp": now + 3600, **other}
    return {name: value for name, value in said.items() if value is not None}


def token(
    user_id: str,
    algorithm: str = "HS256",
    key: Any = SECRET,
    headers: dict[str, Any] | None = None,
    **other: Any,
) -> str:
    """A token as an issuer makes it, with other claims where given."""
    return jwt.encode(claims(user_id, **other), key, algorithm=algorithm, headers=headers)


def signed(algorithm: str, user_id: str, *, name: str = "", kid: str | None = None, **other: Any) -> str:
    """A token signed with a private key of this run."""
    headers = None if kid is None else {"kid": kid}
    return token(user_id, algorithm, private_key(algorithm, name), headers, **other)


def by_hand(header: Any, payload: Any, signature: bytes = b"") -> str:
    """Three parts, whatever they are."""
    parts = [json.dumps(part).encode() if not isinstance(part, bytes) else part for part in (header, payload)]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in [*parts, signature])


def hmac_with(key: bytes, user_id: str) -> str:
    """An HS256 token with any bytes for a secret: libraries refuse to make one of a public key."""
    unsigned = by_hand({"alg": "HS256", "typ": "JWT"}, claims(user_id)).rpartition(".")[0]
    signature = hmac.new(key, unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}"
