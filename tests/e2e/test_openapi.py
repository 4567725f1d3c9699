"""The OpenAPI description is true: whatever is made of it is answered as it says, and never by a mistake of ours."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

import httpx2
import pytest
import schemathesis
from hypothesis import strategies as st
from schemathesis import engine
from schemathesis.config import SchemathesisConfig
from schemathesis.engine.events import NonFatalError, ScenarioFinished

from app.core.position import Incarnation, Position
from app.core.snapshot import Snapshot
from app.core.token import Holder, encode
from app.main import create_app
from tests.support import issuer
from tests.support.issuer import SECRET
from tests.support.server import Server

SEED = 20251207
EXAMPLES = 10
"""Of each operation, beside those that are made of its description one by one."""
SERVICE_TOKEN = "x" * 40


@pytest.fixture(scope="module", params=["everybody", "those with a token"])
def server_settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Nobody is held up for asking much."""
    asked = {"jwt_secret": SECRET, "service_token": SERVICE_TOKEN} if "token" in request.param else {}
    return {"requests_per_user": 1_000_000, **asked}


def test_what_is_described_is_what_happens(server: Server, server_settings: dict[str, Any]) -> None:
    """Good requests and bad ones of every kind, to every operation, with good tokens, bad ones and none."""
    is_open = "jwt_secret" not in server_settings
    config = SchemathesisConfig.from_dict(
        {
            "seed": SEED,
            "cache": {"enabled": False},
            "base-url": server.url,
            "request-timeout": 30,
            "continue-on-failure": True,
            "generation": {"max-examples": EXAMPLES, "no-shrink": True, "database": "none"},
            "parameters": {"query.wait": 0.01},
            "operations": [] if is_open else [with_token("operators", SERVICE_TOKEN), *users()],
        }
    )
    schemathesis.openapi.format("position", st.sampled_from(positions()))
    description = create_app().openapi()
    schema = schemathesis.openapi.from_dict(as_open(description) if is_open else description, config=config)
    answered: Counter[int] = Counter()
    problems = []
    for event in engine.from_schema(schema).execute():
        if isinstance(event, NonFatalError):
            problems.append(str(event.value))
        elif isinstance(event, ScenarioFinished):
            answered.update(
                one.response.status_code if one.response else 0
                for one in event.recorder.interactions.values()
            )
            problems += told(event)

    assert problems == [], "\n".join(problems)
    assert {200, 404, 405, 409 if is_open else 401, 422} <= answered.keys(), answered
    assert all(status < 500 and count for status, count in answered.items()), answered
    assert answered.total() > 500


async def test_a_405_names_every_method_of_its_path(server: Server) -> None:
    """Also where several routes have one path."""
    answer = await server.request("PUT", "/realtime/sync")

    assert (answer.status_code, answer.headers["allow"]) == (405, "GET, POST")


async def test_the_description_is_served(server: Server) -> None:
    """As it is tested here, without a token."""
    answer: httpx2.Response = await server.get("/openapi.json")

    assert answer.json() == create_app().openapi()


def told(event: ScenarioFinished) -> list[str]:
    """What was found wrong in one scenario."""
    return [
        f"{event.recorder.cases[case_id].value.as_curl_command()}: {check.failure_info.failure}"
        for case_id, checks in event.recorder.checks.items()
        for check in checks
        if check.failure_info is not None
    ]


def as_open(description: dict[str, Any]) -> dict[str, Any]:
    """What the description says, in words, of a service that asks nobody for a token: then `user_id` is needed."""
    named = [
        one
        for path, operations in description["paths"].items()
        for operation in operations.values()
        if operation.pop("security", None) and "dead-letters" not in path
        for one in operation.get("parameters", ())
    ]
    for parameter in named:
        if parameter["name"] == "user_id":
            parameter |= {"required": True, "schema": parameter["schema"]["anyOf"][0]}
    for name in ("Ack", "Upload", "Registration"):
        body = description["components"]["schemas"][name]
        body["required"] = [*body.get("required", ()), "user_id"]
        body["properties"]["user_id"] = body["properties"]["user_id"]["anyOf"][0]
    return description


def positions() -> list[str]:
    """Positions that can be read; they are of another database."""
    taken_at, elsewhere = datetime(2026, 1, 1, tzinfo=UTC), Incarnation(1, "00ff" * 4)
    return [
        encode(Position(Snapshot(xmax), taken_at, elsewhere), Holder("ada"))
        for xmax in (1, 1000, 1 << 41 | 5)
    ]


def users() -> list[dict[str, Any]]:
    return [with_token(tag, issuer.token("ada")) for tag in ("devices", "sync", "authentication")]


def with_token(tag: str, token: str) -> dict[str, Any]:
    """Settings of the operations with a tag."""
    return {"include-tag": tag, "headers": {"Authorization": f"Bearer {token}"}}
