"""The one exception of this package."""


class EmbeddedError(RuntimeError):
    """The local PostgreSQL cannot be used; the message says why and what to do about it."""
