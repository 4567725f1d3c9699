"""The service with a clock that is wrong: what it and its scheduler take for the time of day is shifted.

Clocks that only go forward, by which everything is timed that has a length, are left alone, as they are by
whoever sets a machine's clock.
"""

import sys
import time
from datetime import datetime, timedelta, tzinfo
from typing import Any

import apscheduler.schedulers.asyncio  # noqa: F401 - so that it is there to be changed
from fastapi import FastAPI

from app.main import create_app


def shifted(by: timedelta) -> FastAPI:
    """The application, in a process that now lives `by` later."""
    now = time.time

    class Shifted(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Any:
            return datetime.now(tz) + by

    time.time = lambda: now() + by.total_seconds()
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("app", "apscheduler") and getattr(module, "datetime", None) is datetime:
            module.datetime = Shifted  # type: ignore[attr-defined]
    return create_app()
