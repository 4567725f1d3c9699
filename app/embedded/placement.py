"""Where a folder's server may keep its data.

Normally in the folder. Under root the server's account may be unable to traverse to it (below /root, say);
as nobody's modes are changed for that, the data then goes to a directory of its own in /var/tmp, and a link
`elsewhere` in the folder leads there.
"""

import hashlib
import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from app.embedded.account import Account, can_enter, server_account
from app.embedded.errors import EmbeddedError

_ELSEWHERE = Path("/var/tmp")  # noqa: S108 - kept over a restart of the machine; owner and mode are checked


@dataclass(frozen=True, slots=True)
class Place:
    """A directory for a server's files and the locks of its users, and the account to run it under."""

    area: Path
    account: Account | None

    @property
    def home(self) -> Path:
        """The server's own part."""
        return _home(self.area)


def find_place(folder: Path) -> Place:
    """Decide where the server of `folder` lives; the folder is made when it is missing.

    Raises EmbeddedError when there is no account to run it under or the place in /var/tmp is somebody
    else's, and OSError when the folder cannot be made.
    """
    # Processes and sockets are found by the path, so it has to be the same for everybody.
    folder = folder.resolve()
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    account = server_account(_home(folder) / "data")
    if account is None:
        return Place(folder, None)
    if is_new:
        folder.chmod(0o711)  # a strict umask would have closed it
    elsewhere = _ELSEWHERE / f"mindvibe-realtime-{hashlib.sha256(os.fsencode(folder)).hexdigest()[:12]}"
    has_moved = _home(elsewhere).exists() and not _home(folder).exists()
    if can_enter(account, folder) and not has_moved:
        return Place(folder, account)
    _make_for_root(elsewhere)
    with suppress(FileExistsError):
        folder.joinpath("elsewhere").symlink_to(elsewhere)
    return Place(elsewhere, server_account(_home(elsewhere) / "data"))


def _home(area: Path) -> Path:
    return area / "postgres"


def _make_for_root(directory: Path) -> None:
    with suppress(FileExistsError):
        directory.mkdir(mode=0o711)
        directory.chmod(0o711)
    found = directory.lstat()
    # Anybody may write to /var/tmp and could have been there first.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        raise EmbeddedError(f"{directory} belongs to somebody else: remove it, or set DATABASE_URL")
