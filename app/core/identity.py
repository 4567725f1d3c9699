"""Who a client has proved to be, and how it is told that it has not."""

import math
from dataclasses import dataclass


class Denied(Exception):  # noqa: N818 - what the client gets to hear, not a mistake
    """Somebody may not do this; a program tells why by `code`, a person by `message`."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(code)


class Unauthenticated(Denied):
    """No token, or one that proves nothing: get another one. `gave_nothing`: there was none at all."""

    def __init__(self, message: str, *, gave_nothing: bool = False) -> None:
        self.gave_nothing = gave_nothing
        super().__init__("unauthorized", message)


class NotAllowed(Denied):
    """Who it is does not matter, or is known, and may not: trying again will not help."""

    def __init__(self, message: str) -> None:
        super().__init__("not_allowed", message)


class BadCredentials(Denied):
    """Given in a way in which no token is taken."""


@dataclass(frozen=True, slots=True)
class Identity:
    """A user as a token names one; times are unix seconds.

    `issued_at` is None where the token does not say it; `expires_at` is when the token is taken no longer.
    """

    user_id: str
    issued_at: float | None
    expires_at: float

    def is_revoked(self, revoked_before: float | None) -> bool:
        """Whether the token was surely issued before that moment, or does not say when it was.

        Issuers count whole seconds. A token of the second of the revocation may be the one that was given
        out right after it, and is let in; one that tells fractions is judged by them.
        """
        if revoked_before is None:
            return False
        if self.issued_at is None:
            return True
        if float(self.issued_at).is_integer():
            return self.issued_at < math.floor(revoked_before)
        return self.issued_at < revoked_before

    def acts_for(self, user_id: str | None) -> str:
        """The user on whose behalf this is; raises NotAllowed where another one is named."""
        if user_id is not None and user_id != self.user_id:
            raise NotAllowed("The token is another user's; leave user_id out, or give the token's own.")
        return self.user_id
