"""Fixtures and options of the whole suite; the servers behind them are in `support/postgres.py`.

A test asks for `database` (migrated) or `empty_database`, or makes more with `new_database`. It runs on the
newest PostgreSQL found; marked `every_major` on each, and with `--majors all` on each unless marked
`one_major`. Tests that kill or reconfigure a server take `private_cluster`, and for replication and restored
volumes `standby_of` and `cold_copy`.
"""

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from typing import Any

import pytest

from app.embedded import Cluster
from tests.support.postgres import Database, Servers, create_database, discard, drop_database

SERVERS = pytest.StashKey[Servers]()
USED_BY_WORKERS = pytest.StashKey[set[str]]()

NewDatabase = Callable[..., Awaitable[Database]]
NewCluster = Callable[..., Cluster]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--majors", help="run every test that needs PostgreSQL on these, e.g. 15,18 or all")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "every_major: run on every major version of PostgreSQL found")
    config.addinivalue_line("markers", "one_major: run on the newest PostgreSQL alone")
    for name in [name for name in os.environ if name.startswith("PG")] + ["DATABASE_URL"]:
        os.environ.pop(name, None)  # they would lead tests to other servers
    config.stash[SERVERS] = Servers()
    config.stash[USED_BY_WORKERS] = set()


def pytest_unconfigure(config: pytest.Config) -> None:
    if SERVERS in config.stash:
        config.stash[SERVERS].close()


def pytest_report_header(config: pytest.Config) -> str:
    found = config.stash[SERVERS].installations.values()
    return "PostgreSQL found: " + (", ".join(f"{one.version} ({one.bin_dir})" for one in found) or "none")


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["postgresql"] = sorted(session.config.stash[SERVERS].used)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """One more than there are processors: the tests wait for sockets and disks as much as they compute."""
    return len(os.sched_getaffinity(0)) + 1


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    node.config.stash[USED_BY_WORKERS].update(getattr(node, "workeroutput", {}).get("postgresql", []))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    used = {*config.stash[SERVERS].used, *config.stash[USED_BY_WORKERS]}
    if used:
        terminalreporter.write_line(f"PostgreSQL used: {', '.join(sorted(used))}")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marked = metafunc.definition.get_closest_marker("every_major") is not None
    if "major" not in metafunc.fixturenames:
        if marked:
            raise pytest.UsageError(f"{metafunc.definition.nodeid} is marked every_major and uses no server")
        return
    if metafunc.definition.get_closest_marker("one_major") is not None:
        return
    found = list(metafunc.config.stash[SERVERS].installations)
    wanted = metafunc.config.getoption("--majors")
    if marked or wanted == "all":
        majors = found
    elif wanted is not None:
        majors = [int(major) for major in wanted.split(",")]
    else:
        return
    metafunc.parametrize("major", majors, indirect=True, ids=[f"pg{major}" for major in majors])


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Servers:
    """The servers of this run, behind the fixtures below."""
    return request.config.stash[SERVERS]


@pytest.fixture
def major(request: pytest.FixtureRequest, servers: Servers) -> int:
    """The major version of PostgreSQL this test runs on."""
    if not servers.installations:
        pytest.fail("no PostgreSQL is installed: pip install -e '.[dev]'")
    return getattr(request, "param", max(servers.installations))


@pytest.fixture
def cluster(servers: Servers, major: int) -> Cluster:
    """The server shared by all tests; not to be killed or reconfigured."""
    return servers.shared(major)


@pytest.fixture
def disposable() -> Iterator[list[Cluster]]:
    """Servers that are gone after the test."""
    made: list[Cluster] = []
    yield made
    for one in made:
        discard(one)


@pytest.fixture
def private_cluster(servers: Servers, major: int, disposable: list[Cluster]) -> NewCluster:
    """Make servers of one's own, running: `make(tcp=True)` on a port, `make(options={…})` with settings."""

    def make(*, tcp: bool = False, options: Mapping[str, str] | None = None) -> Cluster:
        disposable.append(servers.private(major, tcp=tcp, options=options))
        return disposable[-1]

    return make


@pytest.fixture
def standby_of(servers: Servers, disposable: list[Cluster]) -> NewCluster:
    """Make a running, streaming standby: `make(primary)`, with the same keywords as `private_cluster`."""

    def make(primary: Cluster, *, tcp: bool = False, options: Mapping[str, str] | None = None) -> Cluster:
        disposable.append(servers.standby(primary, tcp=tcp, options=options))
        return disposable[-1]

    return make


@pytest.fixture
def cold_copy(servers: Servers, disposable: list[Cluster]) -> NewCluster:
    """Make a server, not started, on a copy of the files of one that is stopped: `make(source)`."""

    def make(source: Cluster, *, tcp: bool = False, options: Mapping[str, str] | None = None) -> Cluster:
        disposable.append(servers.copy(source, tcp=tcp, options=options))
        return disposable[-1]

    return make


@pytest.fixture
async def new_database(
    request: pytest.FixtureRequest, servers: Servers, major: int
) -> AsyncIterator[NewDatabase]:
    """Make databases: `await make(cluster=…, migrated=…)`; dropped after the test."""
    made: list[Database] = []

    async def make(cluster: Cluster | None = None, *, migrated: bool = True) -> Database:
        made.append(await create_database(cluster or servers.shared(major), migrated=migrated))
        return made[-1]

    yield make
    for one in made:
        await drop_database(one)


@pytest.fixture
async def database(new_database: NewDatabase) -> Database:
    """A fresh, migrated database."""
    return await new_database()


@pytest.fixture
async def empty_database(new_database: NewDatabase) -> Database:
    """A fresh database without any table."""
    return await new_database(migrated=False)
