"""docker-compose.yml, Dockerfile and .dockerignore, read and tried as far as that goes without an engine.

No image is built and no container started here: the files are parsed, and what the image runs is run from a
directory laid out like it.
"""

import fnmatch
import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.bootstrap.service import LAST_WORD
from app.gateway.departure import longest
from app.gateway.uvicorn_host import HostOptions
from app.settings import Settings
from tests.e2e.readme import environment, shell, shell_until_up
from tests.support.postgres import ROOT, Database, free_port

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
FLUSH = 2 * LAST_WORD  # seconds: the receipts, and the pool


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    return compose()["services"]


def compose() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text(encoding="utf-8"))


def interpolated(text: str, variables: dict[str, str]) -> str:
    """What compose makes of `${NAME:-default}`, the default of which may hold another one."""
    pattern = re.compile(r"\$\{(\w+):-([^${}]*)\}")
    while (found := pattern.search(text)) is not None:
        value = variables.get(found[1]) or found[2]
        text = text[: found.start()] + value + text[found.end() :]
    return text


def seconds(duration: str) -> int:
    return int(duration.removesuffix("s"))


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions with their arguments, continued lines joined."""
    lines = [line for line in DOCKERFILE.splitlines() if line.strip() and not line.startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in joined.splitlines()]


def last_stage() -> list[tuple[str, str]]:
    everything = instructions()
    start = max(n for n, (name, _) in enumerate(everything) if name == "FROM")
    return everything[start:]


def one(name: str) -> str:
    """The argument of an instruction that the last stage has once."""
    (argument,) = [argument for each, argument in last_stage() if each == name]
    return argument


# ---- docker-compose.yml


def test_the_service_starts_after_the_migration_and_that_after_the_database(
    services: dict[str, Any],
) -> None:
    """Each waits for what it needs, and not only for its start."""
    assert services["migrate"]["depends_on"] == {"db": {"condition": "service_healthy"}}
    assert services["realtime"]["depends_on"] == {"migrate": {"condition": "service_completed_successfully"}}
    assert services["db"]["healthcheck"]["test"][:2] == ["CMD", "pg_isready"]


def test_nobody_starts_it_without_a_key_for_tokens(services: dict[str, Any]) -> None:
    """Compose refuses to, by this form; what else a production sets is passed on where it is set."""
    variables = services["realtime"]["environment"]

    assert variables["ENVIRONMENT"] == "production"
    assert re.fullmatch(r"\$\{JWT_SECRET:\?[^}]+\}", variables["JWT_SECRET"])
    assert "JWT_SECRET" not in services["migrate"]["environment"]
    passed_on = {name for name, value in variables.items() if value is None}
    assert {name.lower() for name in variables} <= set(Settings.model_fields)
    assert {"ALLOWED_ORIGINS", "FORWARDED_ALLOW_IPS", "SERVICE_TOKEN"} <= passed_on


def test_the_migration_runs_once(services: dict[str, Any]) -> None:
    """It is not started again when it has ended, and runs from the service's own image."""
    assert services["migrate"]["command"] == ["alembic", "upgrade", "head"]
    assert services["migrate"]["restart"] == "no"
    assert services["migrate"]["image"] == services["realtime"]["image"]


def test_only_this_machine_reaches_the_service_and_nobody_the_database(services: dict[str, Any]) -> None:
    """What is on the internet needs TLS before this port."""
    assert services["realtime"]["ports"] == ["127.0.0.1:8002:8002"]
    assert "ports" not in services["db"]
    assert "ports" not in services["migrate"]


@pytest.mark.parametrize("service", ["migrate", "realtime"])
def test_the_address_of_the_environment_comes_first(services: dict[str, Any], service: str) -> None:
    """Without one it is the database beside it, with the password that this was given."""
    text = services[service]["environment"]["DATABASE_URL"]
    database = services["db"]["environment"]

    assert interpolated(text, {"DATABASE_URL": "postgresql://theirs/db"}) == "postgresql://theirs/db"
    for variables in ({}, {"POSTGRES_PASSWORD": "another"}):
        password = interpolated(database["POSTGRES_PASSWORD"], variables)
        assert interpolated(text, variables) == (
            f"postgresql://{database['POSTGRES_USER']}:{password}@db:5432/{database['POSTGRES_DB']}"
        )


def test_the_database_has_a_pinned_major_and_keeps_its_data(services: dict[str, Any]) -> None:
    """In a named volume, at the place where the image of this major expects one."""
    major = int(re.fullmatch(r"postgres:(\d+)", services["db"]["image"])[1])
    volume, _, place = services["db"]["volumes"][0].partition(":")

    assert major >= 18
    assert place == "/var/lib/postgresql"
    assert volume in compose()["volumes"]


def test_the_grace_period_is_longer_than_the_drain(services: dict[str, Any]) -> None:
    """Else the engine kills a process that is still writing its receipts."""
    options = HostOptions()
    needed = longest(Settings.model_fields["drain_window"].default) + options.leftover_timeout
    needed += options.leftover_timeout + options.close_timeout + FLUSH

    assert seconds(services["realtime"]["stop_grace_period"]) > needed


# ---- Dockerfile


def test_the_image_has_two_stages_on_the_same_python() -> None:
    """What builds stays behind; the environment fits because the interpreter is the same."""
    stages = [argument.split() for name, argument in instructions() if name == "FROM"]

    assert [stage[0] for stage in stages] == ["python:3.11-slim"] * 2
    assert stages[0][1:] == ["AS", "build"]
    assert "--from=build /opt/venv /opt/venv" in [
        argument for name, argument in last_stage() if name == "COPY"
    ]


def test_the_image_does_not_run_as_root() -> None:
    """The id is a number, so that an orchestrator can check it, and the account exists."""
    user = one("USER")

    assert int(user) > 0
    assert any(name == "RUN" and f"--uid {user}" in argument for name, argument in last_stage())


def test_the_image_refuses_the_embedded_database() -> None:
    """A container without an address must not quietly begin a database of its own."""
    assert "ENVIRONMENT=production" in one("ENV").split()


def test_the_command_gets_signals_and_serves_the_published_port(services: dict[str, Any]) -> None:
    """The exec form: a shell in between would keep SIGTERM to itself."""
    command = json.loads(one("CMD"))

    assert command[:2] == ["uvicorn", "app.main:app"]
    assert command[command.index("--port") + 1] == one("EXPOSE")
    assert services["realtime"]["ports"][0].split(":")[-1] == one("EXPOSE")
    assert "command" not in services["realtime"]


def test_everything_that_is_copied_is_there_and_not_ignored() -> None:
    """The context is a list of what is needed, so a new file to copy has to be on it."""
    ignore = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    allowed = {line[1:] for line in ignore if line.startswith("!")}
    copied = {
        source
        for name, argument in instructions()
        if name == "COPY" and not argument.startswith("--from")
        for source in argument.split()[:-1]
    }

    assert ignore[0] == "*"
    assert copied == allowed
    assert [source for source in copied if not (ROOT / source).exists()] == []
    assert any(fnmatch.fnmatch("app/__pycache__", pattern) for pattern in ignore[1:])


# ---- what the image runs


@pytest.fixture
def laid_out(tmp_path: Path) -> Path:
    """The image's working directory: what its last stage copies, and nothing else."""
    for name, argument in last_stage():
        if name == "COPY" and not argument.startswith("--from"):
            source, target = argument.split()
            if (ROOT / source).is_dir():
                shutil.copytree(ROOT / source, tmp_path / target)
            else:
                shutil.copy(ROOT / source, tmp_path / target)
    return tmp_path


async def test_the_image_can_migrate_and_serve_and_knows_its_health(
    empty_database: Database, laid_out: Path, services: dict[str, Any]
) -> None:
    """The commands of compose and Dockerfile work from that directory; so does the health check."""
    port = str(free_port())
    variables = {**environment(empty_database.url), "ENVIRONMENT": "production", "JWT_SECRET": "x" * 32}
    migration = shell(shlex.join(services["migrate"]["command"]), variables, cwd=laid_out)
    assert migration.returncode == 0, migration.stderr
    command = " ".join(json.loads(one("CMD"))).replace("8002", port).replace("0.0.0.0", "127.0.0.1")
    check = json.loads(one("HEALTHCHECK").partition("CMD ")[2])
    check = shlex.join(check).replace("8002", port)

    with shell_until_up(command, variables, int(port), cwd=laid_out):
        assert shell(check, variables).returncode == 0
    assert shell(check, variables).returncode == 1
