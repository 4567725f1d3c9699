"""Actions as clients send them: what is understood, and why the rest is not."""

import json
import math
import re
from collections.abc import Iterator
from typing import Any, TypeGuard

from app.store.sync import Action

LONGEST_KEY = 255
LONGEST_TYPE = 50
"""Characters, as in the table."""
LARGEST_PAYLOAD = 64 << 10
"""Bytes of its JSON."""
DEEPEST_PAYLOAD = 200
"""Levels of nesting; PostgreSQL's own limit depends on its stack."""

_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")


class Invalid(Exception):  # noqa: N818 - what a client said, not a mistake
    """Not an action; `key` is the client's, where it can be told again."""

    def __init__(self, key: str | None, reason: str) -> None:
        self.key = key
        self.reason = reason
        super().__init__(reason)


def read(item: Any) -> Action:
    """Understand one item; raises Invalid."""
    if not isinstance(item, dict):
        raise Invalid(None, "an action is an object with key, action_type and payload")
    key, action_type, payload = (item.get(name) for name in ("key", "action_type", "payload"))
    if not _is_text(key, LONGEST_KEY):
        raise Invalid(None, f"key must be text of 1 to {LONGEST_KEY} characters")
    if not _is_text(action_type, LONGEST_TYPE):
        raise Invalid(key, f"action_type must be text of 1 to {LONGEST_TYPE} characters")
    if item.keys() - {"key", "action_type", "payload"}:
        raise Invalid(key, "an action has no other keys than key, action_type and payload")
    if not isinstance(payload, dict):
        raise Invalid(key, "payload must be a JSON object")
    try:
        return Action(key, action_type, _written(payload))
    except ValueError as error:
        raise Invalid(key, str(error)) from error


def _is_text(value: Any, longest: int) -> TypeGuard[str]:
    if not isinstance(value, str) or not 1 <= len(value) <= longest or "\x00" in value:
        return False
    return not any("\ud800" <= letter <= "\udfff" for letter in value)


def _written(payload: dict[str, Any]) -> str:
    """A payload as JSON that jsonb takes; raises ValueError saying what is wrong with it."""
    too_deep = f"payload is nested deeper than {DEEPEST_PAYLOAD} levels"
    try:
        text = json.dumps(payload, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        size = len(text.encode())
    except RecursionError:
        raise ValueError(too_deep) from None
    except ValueError:  # a lone surrogate, or a number that is none
        raise ValueError("payload holds what JSON in PostgreSQL cannot") from None
    if _NUL.search(text):
        raise ValueError("payload holds a NUL character")
    # Only what is small is looked through.
    if size > LARGEST_PAYLOAD or size + _written_out(payload) > LARGEST_PAYLOAD:
        raise ValueError(f"payload has more than {LARGEST_PAYLOAD} bytes")
    if sum(1 for _ in _levels(payload)) > DEEPEST_PAYLOAD:
        raise ValueError(too_deep)
    return text


def _written_out(payload: Any) -> int:
    """Bytes more than as JSON: PostgreSQL writes numbers without an exponent."""
    sizes = (abs(one) for level in _levels(payload) for one in level if isinstance(one, float) and one)
    return sum(int(abs(math.log10(size))) for size in sizes if not 1e-4 <= size < 1e16)


def _levels(payload: Any) -> Iterator[list[Any]]:
    """The values at each level of nesting, the outermost first."""
    level = [payload]
    while level:
        level = [one for outer in level for one in (outer.values() if isinstance(outer, dict) else outer)]
        yield level
        level = [one for one in level if isinstance(one, dict | list)]
