"""What a part of the service says of itself."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class State:
    """What one part says of itself: `details` for health, `reasons` when something is wrong.

    `ready`: whether the process should get traffic as far as this part knows.
    """

    details: dict[str, Any] = field(default_factory=dict)
    reasons: tuple[str, ...] = ()
    ready: bool = True
