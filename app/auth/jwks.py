"""The keys of an issuer who publishes them (JWKS), fetched without ever keeping anybody waiting for long.

Fetched by the loop itself and not in a thread, as the JWT library's own client needs: a thread that hangs
cannot be cancelled and holds up the end of the process, and its timeout begins anew with every byte, so that
a slow server could hold it for ever. Here one deadline covers name, connection, head and body.

Keys are fetched at the start, every `max_age` seconds, and for a token that names an unknown key; but never
more often than every `cooldown` seconds, whatever tokens say. While the server is away those there are go on.
"""

import asyncio
import json
import logging
import time
from typing import Any

import httpx2
import jwt

from app.auth.keys import Key, UnknownKey, UnusableKey, algorithm_of
from app.core.reads import Unavailable
from app.telemetry.state import State

log = logging.getLogger(__name__)

ALGORITHMS = frozenset({"RS256", "ES256", "EdDSA"})
LARGEST = 256 << 10
"""Bytes of an answer."""
MOST_KEYS = 100
_KINDS: dict[str, Any] = {
    "RSA": jwt.algorithms.RSAAlgorithm,
    "EC": jwt.algorithms.ECAlgorithm,
    "OKP": jwt.algorithms.OKPAlgorithm,
}


class Jwks:
    """The keys at a URL; `max_age`, `cooldown` and `timeout` are seconds."""

    def __init__(self, url: str, *, max_age: float, cooldown: float, timeout: float = 5.0) -> None:
        self._url = url
        self._max_age = max_age
        self._cooldown = cooldown
        self._timeout = timeout
        self._keys: tuple[tuple[str | None, Key], ...] = ()
        self._client: httpx2.AsyncClient | None = None
        self._fetching: asyncio.Task[None] | None = None
        self._tried_at = float("-inf")
        self._fetched_at: float | None = None
        self.fetches = 0
        """How often the server was asked."""
        self.failure: str | None = "not fetched yet"
        """Why the last fetch failed, in one line; None when it did not."""

    @property
    def algorithms(self) -> frozenset[str]:
        """Those that any key here can be for; never one of a shared secret."""
        return ALGORITHMS

    async def find(self, algorithm: str, kid: str | None) -> Key:
        """The key of a token; asks the server for one that is unknown, if that may be asked again by now.

        Raises UnknownKey, and Unavailable when the server could not be asked.
        """
        key = self._known(algorithm, kid)
        if key is None:
            await self._refresh()
            key = self._known(algorithm, kid)
        if key is not None:
            return key
        if self.failure is not None:
            raise Unavailable("the key server cannot be reached")
        raise UnknownKey

    async def run(self) -> None:
        """Keep the keys fresh until cancelled."""
        while True:
            await self._refresh()
            await asyncio.sleep(self._cooldown if self.failure is not None else self._max_age)

    async def close(self) -> None:
        """Let go of the connection."""
        if self._fetching is not None:
            self._fetching.cancel()
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def state(self) -> State:
        """For health: degraded while there are no keys, or the last fetch failed."""
        age = None if self._fetched_at is None else round(time.monotonic() - self._fetched_at, 1)
        details = {"mode": "jwks", "keys": len(self._keys), "age_seconds": age}
        reasons = () if self.failure is None else (f"authentication: {self.failure}",)
        return State(details, reasons)

    def _known(self, algorithm: str, kid: str | None) -> Key | None:
        fitting = [(name, key) for name, key in self._keys if key.algorithm == algorithm]
        if kid is None:
            # Without a name there must be no choice.
            return fitting[0][1] if len(fitting) == 1 else None
        return next((key for name, key in fitting if name == kid), None)

    async def _refresh(self) -> None:
        """Fetch, or wait for the fetch that is under way; nothing when one was tried of late."""
        if self._fetching is None:
            now = time.monotonic()
            if now - self._tried_at < self._cooldown:
                return
            self._tried_at = now
            self._fetching = asyncio.create_task(self._fetch(), name="jwks")
            self._fetching.add_done_callback(self._fetched)
        # Whoever gives up waiting must not take the fetch from the others.
        await asyncio.wait({self._fetching})

    def _fetched(self, _: asyncio.Task[None]) -> None:
        self._fetching = None

    async def _fetch(self) -> None:
        self.fetches += 1
        before = self.failure
        try:
            async with asyncio.timeout(self._timeout):
                self._keys = read(await self._download())
            self._fetched_at = time.monotonic()
            self.failure = None
        except (
            httpx2.HTTPError,
            httpx2.InvalidURL,
            TimeoutError,
            OSError,
            ValueError,
            RecursionError,
        ) as error:
            self.failure = f"the keys cannot be fetched: {str(error) or type(error).__name__}"
            if before != self.failure:
                log.warning("%s; those there are go on (%s)", self.failure, len(self._keys))
        else:
            if before is not None:
                log.info("fetched %s keys that tokens are verified with", len(self._keys))

    async def _download(self) -> bytes:
        if self._client is None:
            # It reads the certificates that are trusted, which takes a while.
            self._client = await asyncio.to_thread(httpx2.AsyncClient, timeout=self._timeout)
        async with self._client.stream("GET", self._url, headers={"Accept": "application/json"}) as answer:
            if answer.status_code != httpx2.codes.OK:
                raise ValueError(f"the server answered {answer.status_code}")
            body = b""
            async for part in answer.aiter_bytes():
                body += part
                if len(body) > LARGEST:
                    raise ValueError(f"the answer has more than {LARGEST} bytes")
            return body


def read(body: bytes) -> tuple[tuple[str | None, Key], ...]:
    """The usable keys of a set with their names; raises ValueError where there are none.

    Keys of other kinds, for other uses, and secret ones are passed over.
    """
    document = json.loads(body)
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the answer is no set of keys")  # noqa: TRY004 - of the document, not of an argument
    found = []
    for item in listed[:MOST_KEYS]:
        try:
            found.append(_key(item))
        except (UnusableKey, jwt.PyJWTError, ValueError, TypeError, KeyError):
            continue
    if not found:
        raise ValueError("the answer holds no key that tokens can be verified with")
    return tuple(found)


def _key(item: Any) -> tuple[str | None, Key]:
    if not isinstance(item, dict) or "d" in item or item.get("use", "sig") != "sig":
        raise UnusableKey("not a public key for signatures")
    kid = item.get("kid")
    material = _KINDS[item["kty"]].from_jwk(item)
    algorithm = algorithm_of(material)
    if item.get("alg", algorithm) != algorithm or not isinstance(kid, str | None):
        raise UnusableKey("for another algorithm")
    return kid, Key(algorithm, material)
