"""Tickets for those who cannot send a header: random, and kept as hashes only."""

import hashlib
import secrets
import time

from app.core.identity import Identity, Unauthenticated
from app.store import tickets
from app.store.database import Database
from app.store.reaching import reaching_the_database
from app.store.tickets import TicketRow

LIFETIME = 30.0
"""Seconds in which a ticket must be used."""

_FAILURE = "tickets cannot be reached"
_LONGEST = 128
_SPENT = "This ticket was used, or is too old; get another one from POST /realtime/tickets."
_NO_COOKIE = "The cookie is too old; get another one from POST /realtime/tickets?as=cookie."


class Tickets:
    """Issues and takes tickets; every method raises Unavailable while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def issue(self, identity: Identity) -> str:
        """Make a ticket that is good for 30 seconds and one use."""
        return await self._issue(identity, LIFETIME, single_use=True)

    async def issue_cookie(self, identity: Identity) -> tuple[str, float]:
        """Make one that a browser keeps for as long as the token is taken; returns it and those seconds."""
        left = max(identity.expires_at - time.time(), 0.0)
        return await self._issue(identity, left, single_use=False), left

    async def use_up(self, text: str) -> Identity:
        """Say for whom a ticket stands, which is spent by that; raises Unauthenticated."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                row = await tickets.use_up(connection, _digest(text))
        return _identity(row, _SPENT)

    async def look_at(self, text: str) -> Identity:
        """Say for whom a cookie stands; raises Unauthenticated."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                row = await tickets.look_at(connection, _digest(text))
        return _identity(row, _NO_COOKIE)

    async def _issue(self, identity: Identity, good_for: float, *, single_use: bool) -> str:
        text = secrets.token_urlsafe(32)
        row = TicketRow(identity.user_id, identity.issued_at, identity.expires_at)
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                await tickets.add(connection, _digest(text), row, good_for=good_for, single_use=single_use)
        return text


def _digest(text: str) -> bytes:
    """Without salt or stretching: nobody guesses 256 random bits."""
    return hashlib.sha256(text[:_LONGEST].encode(errors="replace")).digest()


def _identity(row: TicketRow | None, problem: str) -> Identity:
    if row is None or row.expires_at <= time.time():
        raise Unauthenticated(problem)
    return Identity(row.user_id, row.issued_at, row.expires_at)
