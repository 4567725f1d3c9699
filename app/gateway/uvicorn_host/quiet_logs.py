"""No query string in uvicorn's logs: it may carry a token, a position or a user's id.

uvicorn writes the whole request target at INFO, for HTTP on `uvicorn.access` and for WebSockets on
`uvicorn.error`, and at its trace level the whole ASGI scope, but for headers, on `uvicorn.asgi`.
"""

import logging
from typing import Any

LOGGERS = ("uvicorn.error", "uvicorn.access", "uvicorn.asgi")


class WithoutQueries(logging.Filter):
    """Cuts the query string off everything a record is about to be formatted with."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record through, without its query strings."""
        if isinstance(record.args, tuple):
            record.args = tuple(_without_query(each) for each in record.args)
        elif record.args:
            record.args = _without_query(record.args)
        return True


def install_filter() -> None:
    """Put the filter on every logger uvicorn has; once, however often it is called."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        if not any(isinstance(each, WithoutQueries) for each in logger.filters):
            logger.addFilter(WithoutQueries())


def _without_query(value: Any) -> Any:
    match value:
        case str() if "?" in value:
            return value[: value.index("?")]
        case {"type": "http" | "websocket", **rest}:
            # A browser's token comes as a subprotocol.
            return {**rest, "query_string": b"", "subprotocols": []}
        case _:
            return value
