"""Log lines of the service's own loggers, where nobody else has arranged any."""

import logging


def configure() -> None:
    """Write `app` loggers to stderr from INFO on, unless the process has handlers of its own."""
    logger = logging.getLogger("app")
    if logging.getLogger().handlers or logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(levelname)-8s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
