"""The keys that tokens are verified with; each serves exactly one algorithm.

So a token cannot choose how it is looked at: a public key is never taken for a shared secret, nothing is not
a signature, and an algorithm that no key is for is refused before any key is touched.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from cryptography.x509 import load_pem_x509_certificate

from app.telemetry.state import State

SHORTEST_SECRET = 32
"""Bytes: as many as the hash of HS256 has (RFC 7518, section 3.2)."""
SHORTEST_RSA = 2048
"""Bits (RFC 7518, section 3.3)."""


class UnusableKey(Exception):  # noqa: N818 - what somebody configured, not a mistake of ours
    """This cannot verify tokens; the text says why, and nothing of the key."""


class UnknownKey(Exception):  # noqa: N818 - what a token says
    """No key is for this token."""


@dataclass(frozen=True, slots=True)
class Key:
    """A key and the only algorithm it is for."""

    algorithm: str
    material: Any = field(repr=False)


class Keys(Protocol):
    """Where the keys are."""

    @property
    def algorithms(self) -> frozenset[str]:
        """What tokens may be signed with."""

    async def find(self, algorithm: str, kid: str | None) -> Key:
        """The key of a token; raises UnknownKey, and Unavailable while that cannot be said."""

    def state(self) -> State:
        """For health."""


class OneKey:
    """One key for every token, whatever key it names."""

    def __init__(self, mode: str, key: Key) -> None:
        self._mode = mode
        self._key = key

    @property
    def algorithms(self) -> frozenset[str]:
        """The key's own."""
        return frozenset({self._key.algorithm})

    async def find(self, algorithm: str, kid: str | None) -> Key:  # noqa: ARG002 - there is only one
        """The key."""
        if algorithm != self._key.algorithm:
            raise UnknownKey
        return self._key

    def state(self) -> State:
        """For health."""
        return State({"mode": self._mode, "algorithms": sorted(self.algorithms)})


def shared_secret(secret: str) -> OneKey:
    """The secret that the issuer signs with too (HS256); raises UnusableKey."""
    material = secret.encode()
    if len(material) < SHORTEST_SECRET:
        raise UnusableKey(f"has {len(material)} bytes; HS256 needs {SHORTEST_SECRET} random ones at least")
    if b"-----BEGIN" in material:
        raise UnusableKey("is a key in PEM, which is no shared secret; name its file in JWT_PUBLIC_KEY_FILE")
    return OneKey("secret", Key("HS256", material))


def public_key_file(path: Path) -> OneKey:
    """The public key or certificate in a PEM file (RS256, ES256 or EdDSA); raises UnusableKey."""
    try:
        pem = path.read_bytes()
    except OSError as error:
        raise UnusableKey(f"{path} cannot be read: {error.strerror}") from error
    if b"PRIVATE KEY" in pem:
        raise UnusableKey(f"{path} holds a private key, which belongs to the issuer; give its public key")
    try:
        if b"-----BEGIN CERTIFICATE" in pem:
            material: Any = load_pem_x509_certificate(pem).public_key()
        else:
            material = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UnusableKey(f"{path} holds no public key in PEM") from error
    return OneKey("public_key", Key(algorithm_of(material), material))


def algorithm_of(material: Any) -> str:
    """The one algorithm that a public key is for; raises UnusableKey."""
    match material:
        case RSAPublicKey():
            if material.key_size < SHORTEST_RSA:
                raise UnusableKey(f"an RSA key of {material.key_size} bits is too short")
            return "RS256"
        case EllipticCurvePublicKey() if isinstance(material.curve, SECP256R1):
            return "ES256"
        case Ed25519PublicKey():
            return "EdDSA"
        case _:
            raise UnusableKey("a key must be of RSA, of P-256 or of Ed25519")
