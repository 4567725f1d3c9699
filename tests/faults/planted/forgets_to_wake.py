"""A listener that does not look at the outbox after it listens again: what was written meanwhile waits."""

from collections.abc import Callable
from typing import Any

from app.bootstrap import outbox
from app.main import create_app
from app.outbox.listener import Listener


class ForgetfulListener(Listener):
    """Wakes at bells only."""

    def __init__(self, url: Any, wake: Callable[[], None], **rest: Any) -> None:
        super().__init__(url, lambda: None, **rest)
        self._at_a_bell = wake

    def _on_bell(self, *_: object) -> None:
        self._at_a_bell()


outbox.Listener = ForgetfulListener  # type: ignore[misc]
app = create_app()
