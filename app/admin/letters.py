"""Dead letters as the endpoints see them."""

from enum import Enum, auto

from app.core.reads import Unavailable
from app.store import dead_letters
from app.store.database import Database
from app.store.dead_letters import DeadLetter, Held
from app.store.reaching import reaching_the_database

_FAILURE = "dead letters cannot be reached"


class Redriven(Enum):
    """What became of a redrive."""

    DONE = auto()
    NO_SUCH_LETTER = auto()
    IMPOSSIBLE = auto()


class DeadLetters:
    """Dead letters of all users; every method raises Unavailable while the database is away."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, user_id: str | None, after_id: int, at_most: int) -> list[DeadLetter]:
        """List letters above an id, of one user or of all."""
        with reaching_the_database(_FAILURE):
            async with self._database.driver() as connection:
                return await dead_letters.page(connection, user_id, after_id, at_most)

    async def redrive(self, letter_id: int) -> Redriven:
        """Set what a letter is about on its way again; Unavailable also while somebody holds it."""
        try:
            with reaching_the_database(_FAILURE):
                async with self._database.driver() as connection:
                    if await dead_letters.redrive(connection, letter_id):
                        return Redriven.DONE
                    there = await dead_letters.exists(connection, letter_id)
        except Held as error:
            raise Unavailable("held") from error
        return Redriven.IMPOSSIBLE if there else Redriven.NO_SUCH_LETTER

    async def redrive_all(self, user_id: str) -> int:
        """The same for whatever can be of a user, a thousand at most; returns how many."""
        try:
            with reaching_the_database(_FAILURE):
                async with self._database.driver() as connection:
                    return await dead_letters.redrive_all(connection, user_id)
        except Held as error:
            raise Unavailable("held") from error
