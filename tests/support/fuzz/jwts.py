"""Tokens: good ones, ones that a good issuer signed with odd claims in them, and forged ones of every kind."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

from tests.support import issuer

Sign = Callable[[bytes], bytes]
"""How an issuer signs; every algorithm but HS256 takes its own key."""

_TEXTS = [
    "ada",
    "",
    "x" * 255,
    "x" * 256,
    "\ud800",
    "a\x00b",
    "é😀",
    " ada ",
    "../../etc/passwd",
    "' OR 1=1 --",
    "{}",
    "null",
]
_NUMBERS = [
    0,
    1,
    -1,
    True,
    False,
    7.5,
    -0.0,
    10**12,
    10**18,
    10**300,
    1e300,
    -1e300,
    float("inf"),
    float("-inf"),
    float("nan"),
]
_ALGORITHMS = [
    "none",
    "None",
    "NONE",
    "",
    "HS384",
    "HS512",
    "RS256",
    "RS512",
    "PS256",
    "ES256",
    "ES384",
    "EdDSA",
    "hs256",
    "HS256 ",
    None,
    7,
    [],
    {},
    ["HS256"],
]
_KIDS = [
    "",
    "a",
    "../../../dev/null",
    "' OR 1=1 --",
    "\x00",
    "\ud800",
    "x" * 3000,
    None,
    0,
    1.5,
    True,
    [],
    {},
    ["a"],
]
_HEADERS: list[dict[str, Any]] = [
    {"typ": "JWT"}, {"typ": "at+jwt"}, {"typ": 7}, {"typ": None}, {"cty": "JWT"}, {"crit": ["exp"]}, {"crit": []}, {"crit": "exp"},
    {"b64": False}, {"b64": False, "crit": ["b64"]}, {"zip": "DEF"}, {"enc": "A128GCM"}, {"jku": "http://127.0.0.1:1/"}, {"x5u": "file:///"},
    {"jwk": {"kty": "oct", "k": "AAAA"}}, {"jwk": []}, {"x5c": ["AAAA"]}, {"exp": 1}, {"": ""},
]  # fmt: skip
_LETTERS = "ABCDEFabcdef0123456789-_.=+/ \n\té\x00😀"


class Jwts:
    """An endless supply for one algorithm; the same for the same seed, but for the time of day."""

    def __init__(self, seed: int, algorithm: str) -> None:
        self._random = Random(seed)
        self._algorithm = algorithm
        self._sign = signer(algorithm)

    def token(self) -> str:
        """Whatever somebody may show for a token."""
        match self._random.randrange(10):
            case 0:
                return self._signed(self._header(), issuer.claims("ada"))
            case 1 | 2 | 3:
                return self._signed({"alg": self._algorithm}, self._odd_claims())
            case 4:
                return self._signed(self._odd_header(), issuer.claims("ada"))
            case 5:
                return self._signed({"alg": self._algorithm}, self._no_claims())
            case 6:
                return self._forged()
            case _:
                return self._damaged(self._signed(self._header(), issuer.claims("ada")))

    def _header(self) -> dict[str, Any]:
        return {"alg": self._algorithm, "typ": "JWT"}

    def _odd_header(self) -> Any:
        header = self._header() | self._random.choice(_HEADERS)
        one = self._random.random()
        if one < 0.3:
            header["kid"] = self._random.choice(_KIDS)
        elif one < 0.6:
            header["alg"] = self._random.choice(_ALGORITHMS)
        elif one < 0.7:
            return self._random.choice(
                ([], "x", 7, None, b"", b"\xff", b"{", b"[" * 3000, b'{"alg":"HS256","alg":"none"}')
            )
        elif one < 0.8:
            del header["alg"]
        return header

    def _odd_claims(self) -> dict[str, Any]:
        claims = issuer.claims("ada")
        for _ in range(self._random.randrange(1, 4)):
            name = self._random.choice(("sub", "exp", "iat", "nbf", "aud", "iss", "jti", "", "sub"))
            if self._random.random() < 0.15:
                claims.pop(name, None)
            else:
                claims[name] = self._odd_value()
        return claims

    def _odd_value(self) -> Any:
        now = int(time.time())
        near = self._random.choice(
            (now - 5000, now + 5000, now + 5000.5, str(now + 5000), str(now - 5000), -now)
        )
        simple = self._random.choice((*_TEXTS, *_NUMBERS, None, near, near))
        return self._random.choice(
            (simple, simple, simple, [simple], {"a": simple}, [[simple]], [simple, "realtime"])
        )

    def _no_claims(self) -> Any:
        payloads = (
            [], "ada", 7, None, True, b"", b"null", b"\xff\xfe", b"{", b"[" * 3000, b'{"a":' * 900 + b"1" + b"}" * 900,
            b'{"exp":1e999,"sub":"ada"}', b'{"exp":' + b"9" * 5000 + b"}", b'{"sub":"ada","exp":1,"exp":99999999999}',
            b'{"sub":"ada","exp":NaN}', b"\xef\xbb\xbf{}", b'{"sub":"\\ud800","exp":99999999999}', b" " * 4000,
        )  # fmt: skip
        return self._random.choice(payloads)

    def _forged(self) -> str:
        """Signed by somebody else, by nobody, or not as the header says."""
        claims = issuer.claims("ada")
        header = {"alg": self._random.choice((self._algorithm, *_ALGORITHMS))}
        unsigned = _part(header) + "." + _part(claims)
        keys = (
            b"",
            b"x" * 32,
            issuer.OTHER_SECRET.encode(),
            b"null",
            issuer.public_pem("RS256"),
            issuer.public_pem("ES256"),
        )
        signatures = (
            b"", b"\x00" * 32, b"\x00" * 64, b"\xff" * 256, self._random.randbytes(64),
            hmac.new(self._random.choice(keys), unsigned.encode(), hashlib.sha256).digest(),
            hmac.new(issuer.SECRET.encode(), unsigned.encode(), hashlib.sha512).digest(),
        )  # fmt: skip
        return f"{unsigned}.{_text(self._random.choice(signatures))}"

    def _signed(self, header: Any, payload: Any) -> str:
        unsigned = _part(header) + "." + _part(payload)
        return f"{unsigned}.{_text(self._sign(unsigned.encode()))}"

    def _damaged(self, token: str) -> str:
        parts = token.split(".")
        match self._random.randrange(6):
            case 0:
                self._random.shuffle(parts)
                return ".".join(parts)
            case 1:
                return ".".join(self._random.choices(parts, k=self._random.randrange(6)))
            case 2:
                return self._random.choice(
                    (
                        token + "=",
                        token + "==",
                        token + "\n",
                        " " + token,
                        token + ".",
                        "Bearer " + token,
                        token.upper(),
                        "",
                    )
                )
            case 3:
                return token * self._random.choice((2, 40))
        for _ in range(self._random.randrange(1, 3)):
            at = self._random.randrange(len(token))
            letter = self._random.choice(_LETTERS)
            token = token[:at] + self._random.choice((letter, "", letter + token[at])) + token[at + 1 :]
        return token


def signer(algorithm: str) -> Sign:
    """How the issuer of these tests signs bytes."""
    if algorithm == "HS256":
        return lambda data: hmac.new(issuer.SECRET.encode(), data, hashlib.sha256).digest()
    maker: Any = issuer._KINDS[algorithm]
    made = maker() if algorithm == "EdDSA" else maker(maker.SHA256)
    key = issuer.private_key(algorithm, "")
    return lambda data: bytes(made.sign(data, key))


def _part(content: Any) -> str:
    return _text(content if isinstance(content, bytes) else json.dumps(content).encode())


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()
