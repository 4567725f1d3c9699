"""Which database the service is for, and the local one of development where none is named."""

import asyncio
from typing import TYPE_CHECKING

from sqlalchemy import URL

from app.preparation import StartupError
from app.settings import Environment, Settings
from app.store.database import address

if TYPE_CHECKING:
    from app.embedded import LocalServer


def refuse_embedded_in_production(settings: Settings) -> None:
    """Nobody's data is to end up in a folder by mistake; raises StartupError."""
    if settings.environment is Environment.PRODUCTION and settings.database_url is None:
        raise StartupError("DATABASE_URL is not set, and the embedded PostgreSQL is refused in production")


async def find(settings: Settings) -> "tuple[URL, LocalServer | None]":
    """The database's address, and its server to be closed where it is a local one; raises StartupError."""
    try:
        if settings.database_url is not None:
            return address(settings.database_url.get_secret_value()), None
    except ValueError as error:
        raise StartupError(str(error)) from error
    # Imported here, since it needs a Unix and the service does not.
    from app.embedded import EmbeddedError, LocalServer  # noqa: PLC0415

    try:
        local = await asyncio.to_thread(LocalServer.open, settings.embedded_folder)
    except EmbeddedError as error:
        raise StartupError(str(error)) from error
    return address(local.url), local
