"""What the server is told when the service cannot start."""

from typing import Any

import pytest

from app.bootstrap.service import Service
from app.main import create_app


async def test_whatever_keeps_the_service_from_starting_ends_the_start(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An error that passed would be taken for an application without a lifespan, and that would be served."""

    async def fails(_: Service) -> None:
        raise RuntimeError("of ours")

    async def receive() -> dict[str, Any]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        said.append(message)

    said: list[dict[str, Any]] = []
    monkeypatch.setattr(Service, "start", fails)
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody@127.0.0.1/none")

    await create_app()({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)

    assert said == [{"type": "lifespan.startup.failed", "message": "cannot start: of ours"}]
    assert "Traceback" in caplog.text, "a mistake of ours has to be found"
