"""The account PostgreSQL runs under, and how its programs are run.

PostgreSQL refuses to run as root. Under root its programs run as an account that exists already; no
account is created. Under any other account they simply run.
"""

import os
import pwd
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.embedded.errors import EmbeddedError

_PASSED_ON = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "TMPDIR")
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True, slots=True)
class Account:
    """An unprivileged account that root lends to PostgreSQL."""

    name: str
    uid: int
    gid: int


def server_account(data_dir: Path | None = None) -> Account | None:
    """Choose the account for a server; None means the account of this process.

    Under root it is the owner of `data_dir` where that exists, else `postgres`, else `nobody`.
    Raises EmbeddedError when there is none of them.
    """
    if os.geteuid() != 0:
        return None
    if data_dir is not None and data_dir.exists() and data_dir.stat().st_uid != 0:
        owner = data_dir.stat()
        return Account(f"uid {owner.st_uid}", owner.st_uid, owner.st_gid)
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedError(
        "PostgreSQL refuses to run as root and there is neither an account `postgres` nor `nobody`: "
        "run this as another account, or set DATABASE_URL"
    )


def give(path: Path, account: Account | None) -> None:
    """Make `account` the owner of `path`; nothing is done for the account of this process."""
    if account is not None:
        os.chown(path, account.uid, account.gid)


def run(
    command: Sequence[str | Path],
    account: Account | None,
    *,
    environment: dict[str, str] | None = None,
    timeout: float | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as `account`, in a session of its own; `timeout` in seconds.

    A Ctrl-C at the terminal waits until the program has ended: half a start would leave a server that
    nobody stops, and half a stop one that runs on. It gets a small environment: PGPORT, PGDATA
    and their kind would change what a server does, and secrets are none of its business. Raises
    EmbeddedError when it cannot be run at all or takes too long; its exit status is the caller's to read.
    """
    kept = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    # Held back in the program, too: before it has its session, a signal to the group would end it.
    # In a process of several threads another one may take the signal; a raising handler is then too early.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPS)
    try:
        return subprocess.run(  # noqa: S603 - commands are built from found binaries, never from input
            [str(part) for part in command],
            check=False,
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            cwd="/",  # the current directory may be closed to the account
            env={**kept, "LC_ALL": "C", "TZ": "UTC", **(environment or {})},
            timeout=timeout,
            start_new_session=True,
            user=None if account is None else account.uid,
            group=None if account is None else account.gid,
            extra_groups=None if account is None else [],
        )
    except subprocess.TimeoutExpired as error:
        raise EmbeddedError(f"{Path(command[0]).name} took longer than {timeout:.0f} s") from error
    except OSError as error:
        who = "" if account is None else f" as {account.name}"
        raise EmbeddedError(f"cannot run {command[0]}{who}: {error.strerror}") from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def can_enter(account: Account | None, directory: Path) -> bool:
    """Whether `account` may traverse to `directory`; asked of the system, which knows ACLs and mounts."""
    return run(["/bin/sh", "-c", 'cd -- "$1"', "sh", directory], account).returncode == 0
