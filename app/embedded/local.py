"""One local server shared by the processes that need it: migrations, workers, the demo.

Two files are locked. `gate` is held exclusively while somebody comes or goes. `users` is held shared by
everybody who uses the server; who leaves and can have it exclusively was the last and stops the server.
The system drops the locks of a killed process, so nothing has to be counted or cleared up.
"""

import atexit
import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from app.embedded.binaries import Binaries, reachable_by, require_wheel
from app.embedded.cluster import Cluster
from app.embedded.errors import EmbeddedError
from app.embedded.placement import find_place

DATABASE = "mindvibe"
OPTIONS = {
    # People keep data here, so it is as durable as in production.
    "fsync": "on",
    "synchronous_commit": "on",
    # A guest on a developer's machine: little memory, little disk.
    "shared_buffers": "32MB",
    "max_wal_size": "256MB",
    "max_connections": "100",
    "huge_pages": "off",
    "jit": "off",
    "log_checkpoints": "off",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
_GATE_TIMEOUT = 180.0  # seconds; longer than a start after a crash
_GATE_POLL = 0.02


class LocalServer:
    """A running server in a local folder, for as long as this is open.

    Close it, or use it in a `with` block; what is still open when the process ends normally is closed then.
    """

    def __init__(self, cluster: Cluster, area: Path, users: int) -> None:
        self.url = cluster.url(DATABASE)
        """The address of the database `mindvibe`, over a Unix socket, without a password."""
        self._cluster = cluster
        self._area = area
        self._users: int | None = users
        self._pid = os.getpid()
        atexit.register(self.close)

    @classmethod
    def open(cls, folder: Path, *, binaries: Binaries | None = None) -> Self:
        """Join the server of `folder`, starting it if need be; takes about a second the first time.

        Blocks. Raises EmbeddedError, with one line that says what to do, when there are no programs, the
        folder or disk cannot be used, the data is of another major version, or the server does not start.
        """
        binaries = binaries or require_wheel()
        try:
            place = find_place(folder)
            with _gate(place.area):
                programs = reachable_by(place.account, binaries, place.area)
                cluster = Cluster(programs, place.home, account=place.account, options=OPTIONS)
                users = _join(place.area)
                try:
                    _bring_up(cluster)
                except BaseException:
                    _stop_if_last(cluster, users)
                    raise
        except OSError as error:
            raise EmbeddedError(
                f"cannot keep a database in {folder} ({error.strerror}: {error.filename}): "
                "name another folder by EMBEDDED_FOLDER, or set DATABASE_URL"
            ) from error
        return cls(cluster, place.area, users)

    def close(self) -> None:
        """Leave the server, stopping it when nobody else uses it; may be called again."""
        atexit.unregister(self.close)
        users, self._users = self._users, None
        if users is None:
            return
        if os.getpid() != self._pid:
            # A fork shares the lock with its parent, whose it is.
            os.close(users)
            return
        with _gate(self._area):
            _stop_if_last(self._cluster, users)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _bring_up(cluster: Cluster) -> None:
    if not cluster.is_initialised:
        cluster.init()
    cluster.start()
    cluster.ensure_database(DATABASE)


def _join(area: Path) -> int:
    users = os.open(area / "users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(users, fcntl.LOCK_SH)
    return users


def _stop_if_last(cluster: Cluster, users: int) -> None:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return
    else:
        cluster.stop("fast")
    finally:
        os.close(users)


@contextlib.contextmanager
def _gate(area: Path) -> Iterator[None]:
    deadline = time.monotonic() + _GATE_TIMEOUT
    gate = os.open(area / "gate", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        while True:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise EmbeddedError(
                        f"another process has been starting or stopping PostgreSQL in {area} "
                        f"for {_GATE_TIMEOUT:.0f} s: look for it and end it"
                    ) from None
                time.sleep(_GATE_POLL)
        yield
    finally:
        os.close(gate)
