"""Whether a user's token was revoked since it was issued."""

from app.core.identity import Identity, NotAllowed
from app.store import revocations
from app.store.database import Database
from app.store.reaching import reaching_the_database

_FAILURE = "revocations cannot be looked up"


class Revocations:
    """What `realtime_disconnect` and the deletion of users have left."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def check(self, identity: Identity) -> None:
        """Raise NotAllowed for a revoked token, and Unavailable while the database is away."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                revoked_before = await revocations.last(connection, identity.user_id)
        if identity.is_revoked(revoked_before):
            raise NotAllowed("This token was revoked; log in again.")
