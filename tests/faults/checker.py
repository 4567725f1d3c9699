"""Compare what was committed with what was processed; pure, and blind to how either came about.

Each rule is a function from a history to findings; promises are named by their numbers in docs/reliability.md.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter

from tests.faults.history import INFINITY, Copy, Fault, History, Outcome, Reader, Row

MIB = 1 << 20
AFTERMATH = 5.0
"""Seconds after a fault in which the host may still hear of it."""
OLD_POSITIONS = 60.0
"""Seconds after a restart in which what was read before may still come, with a position from before."""
ALWAYS_OURS = {"40P01": "deadlock", "55P03": "lock not available", "40001": "serialization failure"}
"""Errors of the host that no fault explains."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the run allows.

    `window`: messages in flight per connection. `stale_after`: seconds after which what is undelivered may be
    sent again. `memory`: bytes that a process may gain. `retention`: whether rows go as soon as anybody has
    them, so that another reader of the user may find a gap.
    """

    window: int
    stale_after: float
    memory: int = 96 * MIB
    retention: bool = False


@dataclass(frozen=True, slots=True)
class Finding:
    """A promise that was not kept."""

    promise: str
    text: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.promise}: {self.text}"


Key = tuple[str, int]
Rule = Callable[[History, Bounds], Iterator[Finding]]


def check(history: History, bounds: Bounds) -> list[Finding]:
    """Apply every rule; an empty list means that all promises were kept."""
    return [finding for rule in RULES for finding in rule(history, bounds)]


def missing(history: History, bounds: Bounds) -> dict[str, list[Row]]:
    """Tell which rows have not come, by the reader (or, where it has no device, the user) that is owed them."""
    lacking: dict[str, list[Row]] = {}
    owed = _committed(history)
    letters = {(letter.user, letter.key, letter.reader) for letter in history.letters}
    by_user: defaultdict[str, set[int]] = defaultdict(set)
    for reader in history.readers:
        by_user[reader.user].update(copy.key for copy in reader.copies)
    for reader in history.readers:
        has = {copy.key for copy in reader.copies if copy.whose == reader.user}
        if not reader.device:
            has = by_user[reader.user]
        told = max(reader.told, default=-INFINITY)
        rest = [
            row
            for row in owed[reader.user]
            if row.key not in has
            and (reader.takes_sync or not row.sync)
            and (row.user, row.key, None) not in letters
            and (row.user, row.key, reader.name) not in letters
            and not (bounds.retention and row.began < told)
            # Who did not ask to be told cannot be told of it: then somebody of this user has it.
            and not (bounds.retention and not reader.resumes and row.key in by_user[reader.user])
        ]
        if rest:
            lacking[reader.name if reader.device else reader.user] = rest
    return lacking


def lost(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P2: everything committed has come, or can be listed as dead; P6: or its reader was told of a gap."""
    ends = {reader.name: reader.ended for reader in history.readers}
    had = {(reader.user, copy.key) for reader in history.readers for copy in reader.copies}
    for name, rows in missing(history, bounds).items():
        keys = [row.key for row in rows]
        told = f"{name} never got {len(keys)} committed rows: {_some(keys)}"
        # Retention takes only what somebody has: who has not must be told.
        untold = bounds.retention and all((row.user, row.key) in had for row in rows)
        promise = "P6 silence" if untold else "P2 loss"
        yield Finding(promise, f"{told}; was cut by {ends[name]}" if ends.get(name) else told)


def phantoms(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P1: only what was committed comes, lost since or not, and not before its commit."""
    known = _by_key(history)
    for reader in history.readers:
        for copy in reader.copies:
            row = known.get((copy.whose, copy.key))
            if row is None:
                yield Finding("P1 phantom", f"{reader.name} got {copy.key}, which nobody wrote")
            elif row.transaction.outcome not in {Outcome.COMMITTED, Outcome.LOST}:
                yield Finding("P1 phantom", f"{reader.name} got {copy.key}, which was rolled back")
            elif copy.at < row.transaction.commit_began:
                yield Finding("P1 phantom", f"{reader.name} got {copy.key} before its commit")


def leaks(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P4: nobody gets what is another's."""
    for reader in history.readers:
        for copy in reader.copies:
            if copy.whose != reader.user:
                yield Finding("P4 leak", f"{reader.name} of {reader.user} got {copy.key} of {copy.whose}")
    known = _by_key(history)
    for reader in history.readers:
        for copy in reader.copies:
            row = known.get((copy.whose, copy.key))
            if row is not None and row.sync and not reader.takes_sync:
                yield Finding("P4 leak", f"{reader.name} takes no sync rows and got {copy.key}")


def disorder(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P3: if A's transaction committed before B's wrote B, A came first; rows of one transaction in order.

    On every connection, and from one to the next of a reader but for what others of its user had before: such a
    row may be passed over, and sent after all by a process that did not know so. After a restart of the database
    that can be on the same connection. Of what came more than once the first copy counts; what is redelivered has
    no place, where the reader is told so.
    """
    known = _by_key(history)
    restarts = [fault for fault in history.faults if fault.restart]
    for reader in history.readers:
        refused = {key for each in history.readers if each.user == reader.user for key in each.refused}
        firsts = [copy for copy in _placed(reader, refused) if (copy.whose, copy.key) in known]
        had = {} if reader.device else _had_by_others(history, reader, firsts)
        repeated = {
            one.key
            for one in firsts
            if one.key in had and not reader.hears_again and _between(restarts, had[one.key], one.at)
        }
        passed_over = repeated if reader.resumes else had.keys()
        courses = [[copy for copy in firsts if copy.key not in passed_over]]
        for _, course in groupby(firsts, attrgetter("connection")):
            courses.append([copy for copy in course if copy.key not in repeated])
        for course in courses:
            if (found := _out_of_order([known[copy.whose, copy.key] for copy in course])) is not None:
                yield Finding("P3 order", f"{reader.name} got {found}")
                break


def duplicates(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P5: twice only across a cut, a restart of the database, or as a redelivery; a window per cut at most."""
    known = _by_key(history)
    restarts = [fault for fault in history.faults if fault.restart]
    outages = [fault for fault in history.faults if fault.outage or fault.restart]
    for reader in history.readers:
        across_cuts: Counter[int] = Counter()
        for first, again in _pairs(reader):
            row = known.get((again.whose, again.key))
            is_stale = row is not None and again.at - row.began >= bounds.stale_after
            # One sent again for another connection of the user can be the first that this one gets.
            redelivered = again.redelivered or first.redelivered or is_stale
            if redelivered or _between(restarts, first.at, again.at, OLD_POSITIONS):
                continue
            if first.connection == again.connection:
                yield Finding("P5 twice", f"{reader.name} got {again.key} twice on one connection")
            elif reader.resumes:
                yield Finding("P5 twice", f"{reader.name} resumed and got {again.key} twice")
            elif not _between(outages, first.at, again.at):
                across_cuts[again.connection] += 1
        if across_cuts.total() > bounds.window * reader.cuts:
            yield Finding(
                "P5 window",
                f"{reader.name} got {across_cuts.total()} twice in {reader.cuts} cuts: {across_cuts}",
            )


def disagreement(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P5: an id names one row, the same to all; that of a lost one can be another's later."""
    rows: dict[int, Key] = {}
    ids: dict[Key, int] = {}
    known = _by_key(history)
    for reader in history.readers:
        for copy in reader.copies:
            key = copy.whose, copy.key
            if key in known and known[key].transaction.outcome is Outcome.LOST:
                continue
            if rows.setdefault(copy.row_id, key) != key or ids.setdefault(key, copy.row_id) != copy.row_id:
                yield Finding(
                    "P5 identity", f"{reader.name}: id {copy.row_id} is {key} and {rows[copy.row_id]}"
                )


def remains(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P2: when all has settled nothing is left to be delivered, marked or written."""
    left = history.left
    for count, what in (
        (left.undelivered, "events not marked"),
        (left.unsynced, "sync rows not marked"),
        (left.pending, "events that a device has not confirmed"),
        (left.unwritten, "receipts not written"),
    ):
        if count:
            yield Finding("P2 drain", f"{count} {what}")


def growth(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P7: no process grows without bound."""
    for name, samples in history.memory.items():
        if samples and max(samples) - samples[0] > bounds.memory:
            grown = (max(samples) - samples[0]) // MIB
            yield Finding("P7 memory", f"{name} grew by {grown} MiB, from {samples[0] // MIB} MiB")


def harm(history: History, bounds: Bounds) -> Iterator[Finding]:
    """P8: the host's transactions fail only where the database itself was attacked."""
    attacks = [fault for fault in history.faults if fault.database]
    for error in history.host_errors:
        excused = any(fault.began <= error.at and error.began <= fault.ended + AFTERMATH for fault in attacks)
        if error.sqlstate in ALWAYS_OURS or not excused:
            yield Finding("P8 host", f"{error.sqlstate or 'connection'}: {error.text}")


def oddities(history: History, bounds: Bounds) -> Iterator[Finding]:
    """Report whatever was seen that must never be seen."""
    for oddity in history.oddities:
        yield Finding("odd", oddity)


RULES: tuple[Rule, ...] = (
    lost,
    phantoms,
    leaks,
    disorder,
    duplicates,
    disagreement,
    remains,
    growth,
    harm,
    oddities,
)


def _committed(history: History) -> defaultdict[str, list[Row]]:
    owed: defaultdict[str, list[Row]] = defaultdict(list)
    for row in history.rows:
        if row.transaction.outcome is Outcome.COMMITTED:
            owed[row.user].append(row)
    return owed


def _by_key(history: History) -> dict[Key, Row]:
    return {(row.user, row.key): row for row in history.rows}


def _placed(reader: Reader, refused: set[int]) -> list[Copy]:
    """First copies in the order in which they came, without those that have no place."""
    firsts: dict[Key, Copy] = {}
    for copy in reader.copies:
        firsts.setdefault((copy.whose, copy.key), copy)
    return [copy for copy in firsts.values() if not copy.redelivered and copy.key not in refused]


def _had_by_others(history: History, reader: Reader, copies: list[Copy]) -> dict[int, float]:
    """When another reader of the user had what this one got later, by key."""
    firsts: dict[int, float] = {}
    for each in history.readers:
        if each is not reader and each.user == reader.user:
            for copy in each.copies:
                firsts[copy.key] = min(copy.at, firsts.get(copy.key, INFINITY))
    return {copy.key: firsts[copy.key] for copy in copies if firsts.get(copy.key, INFINITY) < copy.at}


def _out_of_order(rows: list[Row]) -> str | None:
    """Tell of a row that came before one that is older; None where there is none."""
    youngest: Row | None = None
    last_of: dict[int, Row] = {}
    for row in rows:
        if youngest is not None and row.transaction.committed < youngest.began:
            return f"{youngest.key} before {row.key}"
        before = last_of.get(row.transaction.number)
        if before is not None and row.key < before.key:
            return f"{before.key} before {row.key}, one transaction"
        last_of[row.transaction.number] = row
        if youngest is None or row.began > youngest.began:
            youngest = row
    return None


def _pairs(reader: Reader) -> Iterator[tuple[Copy, Copy]]:
    before: dict[Key, Copy] = {}
    for copy in reader.copies:
        key = copy.whose, copy.key
        if key in before:
            yield before[key], copy
        before[key] = copy


def _between(faults: list[Fault], first: float, again: float, aftermath: float = AFTERMATH) -> bool:
    return any(fault.began <= again and first <= fault.ended + aftermath for fault in faults)


def _some(keys: list[int]) -> str:
    return ", ".join(map(str, keys[:5])) + (" …" if len(keys) > 5 else "")
