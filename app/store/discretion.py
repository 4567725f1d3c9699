"""What is written down of the database's errors and answers, without what rows and arguments hold."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

_VALUES = re.compile(r"(\nDETAIL:|(?<=invalid input for query argument)).*", re.DOTALL)


def keep_rows_out_of_logs() -> None:
    """Let SQLAlchemy write down statements when it is told to, but no row of an answer."""
    logging.getLogger("sqlalchemy.engine.Engine").addFilter(_is_no_row)


def _is_no_row(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG


@contextmanager
def values_untold() -> Iterator[None]:
    """Let errors pass, but no value of a row or an argument in the text of one, or of its causes."""
    try:
        yield
    except Exception as error:
        _forget_values(error)
        raise


def _forget_values(error: BaseException) -> None:
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.args = tuple(_VALUES.sub("", each) if isinstance(each, str) else each for each in one.args)
        if isinstance(one, asyncpg.PostgresError):
            one.detail = None  # with which the driver ends its text
        waiting += (one.__cause__, one.__context__, getattr(one, "orig", None))
