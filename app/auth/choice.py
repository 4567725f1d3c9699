"""Which authentication there is, of what is configured: none, or exactly one kind of key."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from app.auth.jwks import Jwks
from app.auth.keys import SHORTEST_SECRET, Keys, UnusableKey, public_key_file, shared_secret
from app.auth.service import ServiceAccess
from app.core.addresses import is_loopback
from app.telemetry.state import State

OPEN = "nobody is asked for a token: whoever reaches this port reads any user's events"
HOW = "set JWT_SECRET, JWT_PUBLIC_KEY_FILE or JWT_JWKS_URL"


class Misconfigured(Exception):  # noqa: N818 - what somebody configured, not a mistake of ours
    """This cannot be meant; the text is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where keys may come from, as configured; `max_age` and `cooldown` (of the JWKS) are seconds."""

    secret: str | None
    public_key_file: Path | None
    jwks_url: str | None
    max_age: float
    cooldown: float


def choose_keys(sources: Sources, *, in_production: bool, other_settings: list[str]) -> Keys | None:
    """The keys; None where nothing is configured. Raises Misconfigured.

    `other_settings` are those set that mean nothing without a key.
    """
    named = {
        "JWT_SECRET": sources.secret,
        "JWT_PUBLIC_KEY_FILE": sources.public_key_file,
        "JWT_JWKS_URL": sources.jwks_url,
    }
    given = [name for name, value in named.items() if value is not None]
    if len(given) > 1:
        raise Misconfigured(f"{' and '.join(given)} are set; set one of them, and unset the rest")
    try:
        if sources.secret is not None:
            return shared_secret(sources.secret)
        if sources.public_key_file is not None:
            return public_key_file(sources.public_key_file)
        if sources.jwks_url is not None:
            url = _checked_url(sources.jwks_url, in_production=in_production)
            return Jwks(url, max_age=sources.max_age, cooldown=sources.cooldown)
    except UnusableKey as error:
        raise Misconfigured(f"{given[0]} {error}") from error
    if other_settings:
        raise Misconfigured(f"{other_settings[0]} is set, and no key: {HOW}, or unset it")
    if in_production:
        raise Misconfigured(f"in production everybody has to be asked for a token: {HOW}")
    return None


def service_access(token: str | None, *, is_open: bool) -> ServiceAccess:
    """What operators need; raises Misconfigured for a token that can be guessed."""
    if token is not None and len(token) < SHORTEST_SECRET:
        raise Misconfigured(f"SERVICE_TOKEN has {len(token)} characters; use {SHORTEST_SECRET} random ones")
    if token is not None and not (token.isascii() and token.isprintable() and " " not in token):
        raise Misconfigured("SERVICE_TOKEN has to be printable ASCII without spaces, to be sent in a header")
    return ServiceAccess(token, is_open=is_open)


def state(keys: Keys | None, *, has_service_token: bool) -> State:
    """For health; that nobody is asked is told and is no fault."""
    of_keys = State({"mode": "open", "warning": f"{OPEN}; {HOW}"}) if keys is None else keys.state()
    operators = "token" if has_service_token else "loopback" if keys is None else "nobody"
    return State({**of_keys.details, "operators": operators}, of_keys.reasons)


def _checked_url(url: str, *, in_production: bool) -> str:
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in {"http", "https"}:
        raise UnusableKey("is no address; expected https://issuer/.well-known/jwks.json")
    if parts.scheme == "http" and in_production and not (host == "localhost" or is_loopback(host)):
        raise UnusableKey("has to be https in production: whoever answers in its place makes tokens")
    return url
