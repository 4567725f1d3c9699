"""Finds out who somebody is, on whatever way they come."""

from collections.abc import Mapping
from typing import Any

from app.auth import credentials
from app.auth.credentials import Bearer, Cookie, Ticket
from app.auth.revocations import Revocations
from app.auth.tickets import Tickets
from app.auth.tokens import NOTHING_GIVEN, Tokens
from app.core.identity import Identity, NotAllowed, Unauthenticated


class Doorkeeper:
    """Asks everybody for a token; without `tokens` nobody."""

    def __init__(self, tokens: Tokens | None, tickets: Tickets, revocations: Revocations) -> None:
        self._tokens = tokens
        self._tickets = tickets
        self._revocations = revocations

    @property
    def is_open(self) -> bool:
        """Whether nobody is asked, and anybody may be any user."""
        return self._tokens is None

    async def identify(self, scope: Mapping[str, Any], *, by_cookie: bool = False) -> Identity | None:
        """Say who connects, by a token or a ticket; None where nobody is asked.

        Raises Denied, and Unavailable. `by_cookie`: a cookie will do.
        """
        if self._tokens is None:
            return None
        match credentials.find(scope, by_ticket=True, by_cookie=by_cookie):
            case Bearer(token):
                return await self.verify(token)
            case Ticket(text):
                identity = await self._tickets.use_up(text)
            case Cookie(text):
                identity = await self._tickets.look_at(text)
            case None:
                raise Unauthenticated(NOTHING_GIVEN, gave_nothing=True)
        await self._revocations.check(identity)
        return identity

    async def identify_by_token(self, scope: Mapping[str, Any]) -> Identity | None:
        """Say who asks, by a token and by nothing that stands for one; as above."""
        if self._tokens is None:
            return None
        match credentials.find(scope):
            case Bearer(token):
                return await self.verify(token)
            case _:
                raise Unauthenticated("Give a token: `Authorization: Bearer …`.", gave_nothing=True)

    async def verify(self, token: str) -> Identity:
        """Say whose token this is, which must be one; raises Denied and Unavailable."""
        if self._tokens is None:
            raise Unauthenticated("This service asks for no token.")
        identity = await self._tokens.verify(token)
        await self._revocations.check(identity)
        return identity

    async def renew(self, identity: Identity, token: str) -> Identity:
        """Say what a connection's new token makes of it: the same user's, for longer or not."""
        renewed = await self.verify(token)
        if renewed.user_id != identity.user_id:
            raise NotAllowed("The token is another user's; connect as that user instead.")
        return renewed

    async def still_allowed(self, identity: Identity) -> None:
        """Look again, after a while; raises NotAllowed, and Unavailable."""
        await self._revocations.check(identity)
