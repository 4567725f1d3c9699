"""One PostgreSQL server on one data directory: make, start, stop, kill. Everything here blocks.

It listens on a Unix socket, and on a TCP port of 127.0.0.1 only when asked to.
"""

import hashlib
import os
import shlex
import shutil
import socket
import stat
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from app.embedded import processes
from app.embedded.account import Account, give, run
from app.embedded.binaries import Binaries
from app.embedded.errors import EmbeddedError

SUPERUSER = "postgres"
SOCKET_PORT = 5432  # only part of the socket's name as long as no TCP port is asked for
LONGEST_SOCKET_PATH = 103  # bytes: Linux takes 107, macOS 103
LARGEST_LOG = 8 << 20  # bytes
_START_TIMEOUT = 60  # seconds; recovery after a crash happens within
_STOP_TIMEOUT = 60
_POLL = 0.05


class Cluster:
    """A server whose files are all below `home`: the data, the socket's directory, the log.

    `home` gets mode 0700 and belongs to `account` (None: to this process's account). That is what makes
    `trust` authentication on the socket sound: nobody else but root can reach it. `options` are server
    settings for the command line. With a TCP `port`, every local account can connect: for tests only.
    """

    def __init__(
        self,
        binaries: Binaries,
        home: Path,
        *,
        account: Account | None = None,
        options: Mapping[str, str] | None = None,
        port: int | None = None,
    ) -> None:
        self.binaries = binaries
        self.home = home.absolute()
        self.account = account
        self.options = dict(options or {})
        self.tcp_port = port
        self._digest = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:12]

    @property
    def major(self) -> int:
        """The major version of the programs, such as 18."""
        return self.binaries.major

    @property
    def data_dir(self) -> Path:
        """The data directory."""
        return self.home / "data"

    @property
    def log(self) -> Path:
        """What the server has to say."""
        return self.home / "server.log"

    @property
    def port(self) -> int:
        """The TCP port, or the number in the socket's name."""
        return self.tcp_port or SOCKET_PORT

    @property
    def cluster_name(self) -> str:
        """The name in the titles of this server's processes."""
        return f"mindvibe_{self._digest}"

    @property
    def socket_dir(self) -> Path:
        """The socket's directory: below `home`, or a short one in /tmp where that cannot be addressed.

        A socket's path is limited by the kernel, and a comma or colon in it by the drivers' URLs.
        """
        inside = self.home / "socket"
        path = os.fsencode(inside / f".s.PGSQL.{self.port}")
        if len(path) <= LONGEST_SOCKET_PATH and not set(b",:") & set(path):
            return inside
        return Path("/tmp") / f"mindvibe-{self._digest}"  # noqa: S108 - its owner and mode are checked

    @property
    def is_initialised(self) -> bool:
        """Whether there is data."""
        return self.data_dir.joinpath("PG_VERSION").exists()

    @property
    def is_running(self) -> bool:
        """Whether a postmaster listens on the socket (it may still be starting)."""
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(str(self.socket_dir / f".s.PGSQL.{self.port}"))
            except OSError:
                return False
        return True

    def url(
        self, database: str = SUPERUSER, *, user: str = SUPERUSER, tcp: bool = False, driver: str = ""
    ) -> str:
        """The address of a database, for asyncpg, psql and SQLAlchemy (`driver="+asyncpg"`).

        Over the socket unless `tcp`. Port and user are always told, so that no PG* variable of the
        environment changes where it leads.
        """
        user, database = quote(user, safe=""), quote(database, safe="")
        if tcp:
            if self.tcp_port is None:
                raise ValueError("this cluster has no TCP port")
            return f"postgresql{driver}://{user}@127.0.0.1:{self.tcp_port}/{database}"
        host = quote(str(self.socket_dir), safe="/")
        return f"postgresql{driver}://{user}@/{database}?host={host}&port={self.port}"

    def init(self) -> None:
        """Make the data directory; an attempt that was interrupted before leaves nothing behind.

        The files are not synced: after a power cut within the first half minute, begin anew.
        Raises EmbeddedError when there is data already or initdb fails.
        """
        if self.data_dir.exists():
            raise EmbeddedError(f"{self.data_dir} exists already")
        self.prepare_home()
        unfinished = self.home / "data.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        done = run(
            [
                self.binaries.program("initdb"),
                *("--pgdata", unfinished, "--username", SUPERUSER, "--auth", "trust"),
                *("--encoding", "UTF8", "--no-locale", "--no-sync", "--no-instructions"),
            ],
            self.account,
        )
        if done.returncode != 0:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise EmbeddedError(f"initdb failed in {self.home}: {_reason(done.stderr)}")
        unfinished.rename(self.data_dir)

    def start(self) -> None:
        """Start the server, after a kill too, and return when it takes connections.

        The server is no child of this process and has a session of its own: neither this process's end nor
        a Ctrl-C at its terminal ends it. Nothing is done when it runs already. Raises EmbeddedError when
        the data is another major version's or the server does not come up.
        """
        if self._wait_for_the_running_one():
            return
        self._check_major()
        self._clear_up()
        self._prepare_socket_dir()
        self._rotate_log()
        started = run(
            [
                self.binaries.program("pg_ctl"),
                *("start", "--wait", "--timeout", str(_START_TIMEOUT)),
                *("--pgdata", self.data_dir, "--log", self.log, "--options", self._server_options()),
            ],
            self.account,
            timeout=_START_TIMEOUT + 10,
        )
        if started.returncode != 0:
            raise EmbeddedError(f"PostgreSQL does not start: {self._last_words(started.stderr)}")

    def stop(self, mode: Literal["smart", "fast", "immediate"] = "fast") -> None:
        """Stop the server and return when it has ended; nothing is done when it does not run.

        Raises EmbeddedError when it is still there after a minute.
        """
        if not self.is_running:
            return
        stopped = run(
            [
                self.binaries.program("pg_ctl"),
                *("stop", "--wait", "--timeout", str(_STOP_TIMEOUT)),
                *("--pgdata", str(self.data_dir), "--mode", mode),
            ],
            self.account,
            timeout=_STOP_TIMEOUT + 10,
        )
        if stopped.returncode != 0 and self.is_running:
            raise EmbeddedError(f"PostgreSQL does not stop: {_reason(stopped.stderr)}")

    def kill(self) -> None:
        """End postmaster and backends with SIGKILL, as a crash would; return when all are gone."""
        if self.data_dir.exists():
            processes.kill(self.cluster_name, self.data_dir.stat().st_uid)

    def tool(self, name: str, *arguments: str | Path) -> str:
        """Run a client program (psql, pg_dump, …) against this server and return what it prints.

        Raises EmbeddedError with its complaint when it fails.
        """
        here = {"PGHOST": str(self.socket_dir), "PGPORT": str(self.port), "PGUSER": SUPERUSER}
        done = run([self.binaries.program(name), *arguments], self.account, environment=here)
        if done.returncode != 0:
            raise EmbeddedError(f"{name} failed: {_reason(done.stderr)}")
        return done.stdout

    def ensure_database(self, name: str) -> None:
        """Create an empty database unless it is there."""
        names = self.tool("psql", "-XAtd", SUPERUSER, "-c", "SELECT datname FROM pg_database")
        if name not in names.splitlines():
            self.tool("createdb", name)

    def prepare_home(self) -> None:
        """Make `home` with its owner and mode; whoever copies data in instead of `init` needs it too."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        give(self.home, self.account)
        self.home.chmod(0o700)

    def _wait_for_the_running_one(self) -> bool:
        # A server that somebody else started may be on its way up, or down.
        deadline = time.monotonic() + _START_TIMEOUT
        probe = self.binaries.program("pg_isready")
        while self.is_running:
            asked = run([probe, "-q", "-h", self.socket_dir, "-p", str(self.port)], self.account)
            if asked.returncode == 0:
                return True
            if time.monotonic() > deadline:
                raise EmbeddedError(f"PostgreSQL runs but takes no connections (see {self.log})")
            time.sleep(_POLL)
        return False

    def _prepare_socket_dir(self) -> None:
        place = self.socket_dir
        owner = os.geteuid() if self.account is None else self.account.uid
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            found = place.lstat()
            mine = stat.S_ISDIR(found.st_mode) and found.st_uid in (owner, os.geteuid())
            # In /tmp anybody may have been there first, and would see every connection.
            if not mine or stat.S_IMODE(found.st_mode) & 0o077:
                raise EmbeddedError(f"{place} belongs to somebody else: remove it") from None
        give(place, self.account)

    def _server_options(self) -> str:
        options = {
            "listen_addresses": "" if self.tcp_port is None else "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": str(self.socket_dir),
            "unix_socket_permissions": "0700",
            # Docker gives /dev/shm 64 MB, and a kill leaves there what nobody clears up.
            "dynamic_shared_memory_type": "mmap",
            **self.options,
            "cluster_name": self.cluster_name,
        }
        # pg_ctl hands this to a shell.
        return " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in options.items())

    def _check_major(self) -> None:
        if not self.is_initialised:
            raise EmbeddedError(f"{self.data_dir} holds no PostgreSQL data: remove it to begin anew")
        written_by = self.data_dir.joinpath("PG_VERSION").read_text().strip()
        if written_by != str(self.major):
            raise EmbeddedError(
                f"the data in {self.data_dir} is PostgreSQL {written_by}'s and this is {self.major}: "
                f"dump it with {written_by} and restore it, or remove {self.home} to begin anew"
            )

    def _clear_up(self) -> None:
        # Nothing listens on the socket, so whatever is left over from a kill is in the way: backends of a
        # dead postmaster, and lock files that name a process which may be another's by now.
        self.kill()
        self.data_dir.joinpath("postmaster.pid").unlink(missing_ok=True)
        for name in (f".s.PGSQL.{self.port}", f".s.PGSQL.{self.port}.lock"):
            self.socket_dir.joinpath(name).unlink(missing_ok=True)

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LARGEST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _last_words(self, otherwise: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        serious = [line for line in lines[-50:] if "FATAL" in line or "PANIC" in line]
        return f"{serious[-1] if serious else _reason(otherwise)} (all of it: {self.log})"


def _reason(complaint: str) -> str:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    errors = [line for line in lines if "error:" in line or "FATAL" in line]
    reason = (errors or lines or ["it gave no reason"])[0]
    if "No space left on device" in complaint:
        reason += " - make room on the disk"
    return reason
