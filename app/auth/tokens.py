"""Read a JWT and say whose it is."""

import re

import jwt

from app.auth.keys import Keys, UnknownKey
from app.core.identity import Identity, Unauthenticated

LONGEST = 8192
"""Characters of a token; longer ones are not looked at."""
LONGEST_USER_ID = 255
LAST_EXPIRY = 253402300799
"""The end of the year 9999, in unix seconds; later ones are no times to PostgreSQL, nor to a browser."""

NOTHING_GIVEN = (
    "Give a token: `Authorization: Bearer …`, the WebSocket subprotocols mindvibe.v1 and bearer.…, or"
    " ?ticket= with one from POST /realtime/tickets."
)
BAD = "This is no token that this service takes."
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""What JSON can have in a text and PostgreSQL cannot."""
_OPTIONS = {"require": ["exp"], "verify_sub": False, "verify_jti": False, "enforce_minimum_key_length": True}


class Tokens:
    """Verifies tokens; `leeway` is seconds by which clocks may differ."""

    def __init__(
        self,
        keys: Keys,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        user_claim: str = "sub",
        leeway: float = 0.0,
    ) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._user_claim = user_claim
        self._leeway = leeway

    async def verify(self, token: str) -> Identity:
        """Say whose token this is; raises Unauthenticated, and Unavailable while its key cannot be had."""
        if len(token) > LONGEST:
            raise Unauthenticated(BAD)
        try:
            header = jwt.get_unverified_header(token)
            algorithm = header.get("alg")
            if not isinstance(algorithm, str) or algorithm not in self._keys.algorithms:
                raise Unauthenticated("The token is not signed in a way that this service takes.")
            key = await self._keys.find(algorithm, header.get("kid"))
            claims = jwt.decode(
                token,
                key.material,
                algorithms=[key.algorithm],
                options=_OPTIONS,  # type: ignore[arg-type]
                issuer=self._issuer,
                audience=self._audience,
                leeway=self._leeway,
            )
            issued_at, expires_at = claims.get("iat"), float(claims["exp"])
            if expires_at > LAST_EXPIRY:
                raise Unauthenticated(
                    "The token's exp is no time that comes; one that never expires is not taken."
                )
            return Identity(
                self._user_of(claims.get(self._user_claim)),
                None if issued_at is None else float(issued_at),
                expires_at + self._leeway,
            )
        except UnknownKey:
            raise Unauthenticated("The token is signed with a key that this service does not know.") from None
        except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError) as error:
            # Never from it: some of these quote the token.
            raise Unauthenticated(_reason(error)) from None

    def _user_of(self, claim: object) -> str:
        if type(claim) is int:
            claim = str(claim)
        if not isinstance(claim, str) or not 0 < len(claim) <= LONGEST_USER_ID or _UNSTORABLE.search(claim):
            raise Unauthenticated("The token does not say whose it is in the claim that is looked at.")
        return claim


def _reason(error: Exception) -> str:
    match error:
        case jwt.ExpiredSignatureError():
            return "The token has expired; get another one."
        case jwt.ImmatureSignatureError():
            return "The token is not valid yet."
        case jwt.MissingRequiredClaimError(claim="exp"):
            return "The token has no exp; one that never expires is not taken."
        case jwt.InvalidAudienceError() | jwt.MissingRequiredClaimError(claim="aud"):
            return "The token is for somebody else: its aud is not the one looked for."
        case jwt.InvalidIssuerError() | jwt.MissingRequiredClaimError(claim="iss"):
            return "The token is from somebody else: its iss is not the one looked for."
        case _:
            return BAD
