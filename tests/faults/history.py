"""What is written down during a run: by the writers, the readers, and whoever breaks things.

All times are seconds of one monotonic clock.
"""

from dataclasses import dataclass, field
from enum import StrEnum

INFINITY = float("inf")


class Outcome(StrEnum):
    """How a transaction ended, as its writer knows.

    UNKNOWN where the connection broke in the COMMIT; LOST where it was committed, or may have been, on a primary
    whose successor has not heard of it.
    """

    COMMITTED = "committed"
    LOST = "lost"
    NEVER = "never"
    UNKNOWN = "unknown"


@dataclass(slots=True)
class Transaction:
    """One transaction of a host; `committed` is when its writer heard so."""

    number: int
    began: float
    outcome: Outcome = Outcome.NEVER
    commit_began: float = INFINITY
    committed: float = INFINITY


@dataclass(frozen=True, slots=True)
class Row:
    """One message that a user is owed if its transaction committed; `sync` ones only on mobile devices."""

    key: int
    user: str
    transaction: Transaction
    began: float
    sync: bool = False


@dataclass(frozen=True, slots=True)
class Copy:
    """One message that a reader processed; `whose` is what the message itself says."""

    key: int
    whose: str
    row_id: int
    connection: int
    at: float
    redelivered: bool = False


@dataclass(slots=True)
class Reader:
    """One client over all its connections.

    `device`: whether it is a device of its own, which is owed everything; else all of a user's readers
    together are. `resumes`: whether it says where it goes on, and so gets nothing twice. `hears_again`: whether it
    is told what is sent again.
    """

    name: str
    user: str
    device: bool = True
    takes_sync: bool = True
    resumes: bool = False
    hears_again: bool = False
    copies: list[Copy] = field(default_factory=list)
    cuts: int = 0
    told: list[float] = field(default_factory=list)
    """When it was told that its history has a gap."""
    refused: set[int] = field(default_factory=set)
    """Keys that it could not process at first."""
    ended: str = ""
    """How its last connection but the present one ended."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that was broken, and for how long.

    `database`: the host may have felt it too. `restart`: the database began another life. `outage`: the
    service could not be sure to write.
    """

    name: str
    began: float
    ended: float
    database: bool = False
    restart: bool = False
    outage: bool = False


@dataclass(frozen=True, slots=True)
class HostError:
    """A transaction of the host that failed, though nobody rolled it back.

    `began` is when its connection was last seen to work: what broke that may have ended long before `at`.
    """

    began: float
    at: float
    sqlstate: str
    text: str


@dataclass(frozen=True, slots=True)
class Letter:
    """A dead letter: given up for the reader of this name, or for all of the user where that is None."""

    user: str
    key: int
    reader: str | None


@dataclass(slots=True)
class Left:
    """What the database and the processes had left when all had settled."""

    undelivered: int = 0
    unsynced: int = 0
    pending: int = 0
    """Events that a device has not confirmed."""
    unwritten: int = 0
    """Receipts in memory."""


@dataclass(slots=True)
class History:
    """Everything that was written down of one run."""

    rows: list[Row] = field(default_factory=list)
    readers: list[Reader] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    host_errors: list[HostError] = field(default_factory=list)
    letters: list[Letter] = field(default_factory=list)
    left: Left = field(default_factory=Left)
    memory: dict[str, list[int]] = field(default_factory=dict)
    """Bytes held by each process, as sampled."""
    oddities: list[str] = field(default_factory=list)
    """What should not have been seen: a traceback in a log, a contradiction in the protocol."""
