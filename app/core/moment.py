"""Moments as rows bring them: microseconds since 1970, where a datetime takes the driver far longer."""

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def microseconds(at: datetime) -> int:
    """Count from 1970 to a moment, which knows its zone."""
    return (at - _EPOCH) // _MICROSECOND


def moment(since_epoch: int) -> datetime:
    """Tell the moment, in UTC, so many microseconds after 1970; raises OverflowError beyond the year 9999."""
    return _EPOCH + timedelta(microseconds=since_epoch)


def timestamp(since_epoch: int) -> str:
    """UTC with milliseconds and `Z`, as everywhere in the contract, of microseconds since 1970."""
    second, rest = divmod(since_epoch, 1_000_000)
    return f"{_second(second)}.{rest // 1000:03}Z"


@lru_cache(maxsize=64)
def _second(since_epoch: int) -> str:
    """A second in UTC; most messages are of one that has been written before, which takes far longer."""
    return (_EPOCH + timedelta(seconds=since_epoch)).isoformat()[:-6]
