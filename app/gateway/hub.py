"""Who is connected to this process: user -> connections."""

from collections.abc import Callable, Container, Iterable

from app.core import commands
from app.core.close_codes import DELETED, REMOVED, REPLACED, CloseCode
from app.core.commands import Command
from app.core.messages import Message
from app.core.position import Pass
from app.gateway.connection import Connection


class Hub:
    """Puts rows to connections; rows of users who are elsewhere cost a dictionary miss.

    `on_user_deleted` is called for each deletion that is obeyed.
    """

    def __init__(self, *, on_user_deleted: Callable[[], None] | None = None) -> None:
        self._on_user_deleted = on_user_deleted
        self._connections: dict[str, tuple[Connection, ...]] = {}
        self.routed: Pass | None = None
        """The last pass of the tail of which every row has been routed."""
        self.count = 0
        """Connections of this process."""

    @property
    def users(self) -> dict[str, tuple[Connection, ...]]:
        """Users with a connection to this process; not to be changed."""
        return self._connections

    def of(self, user_id: str) -> tuple[Connection, ...]:
        """The connections of one user."""
        return self._connections.get(user_id, ())

    def everyone(self) -> list[Connection]:
        """Every connection of this process."""
        return [connection for connections in self._connections.values() for connection in connections]

    def add(self, connection: Connection) -> None:
        """Register a connection; from now on it is routed its user's rows."""
        self._connections[connection.user_id] = (*self.of(connection.user_id), connection)
        self.count += 1

    def remove(self, connection: Connection) -> None:
        """Forget a connection; nothing to do when it is not registered."""
        before = self.of(connection.user_id)
        rest = tuple(other for other in before if other is not connection)
        self.count -= len(before) - len(rest)
        if rest:
            self._connections[connection.user_id] = rest
        else:
            self._connections.pop(connection.user_id, None)

    def route(self, user_id: str, messages: list[Message], found_by: Pass) -> None:
        """Hand rows, in id order, to every connection of a user."""
        # As `_tell` does, less a closure and a call: nothing is done as often.
        for connection in self._connections.get(user_id, ()):
            try:
                connection.route(messages, found_by)
            except Exception as fault:  # noqa: BLE001 - whatever it is
                connection.abandon(fault)

    def redeliver(self, user_id: str, message: Message) -> None:
        """Send a stale row again to every connection of a user that has not got it on its way."""
        self._tell(self.of(user_id), lambda connection: connection.redeliver(message))

    def redeliver_to(self, user_id: str, numbers: Container[int], message: Message) -> None:
        """Send a row again to those connections of a user that have these ids."""
        mine = [connection for connection in self.of(user_id) if connection.id in numbers]
        self._tell(mine, lambda connection: connection.redeliver(message))

    def overtaken(self) -> None:
        """Let everybody come back: only `connected` can tell of rows that are gone."""
        reason = "rows may have been removed before you got them; reconnect"
        self._close(self.everyone(), CloseCode.RESTART, reason)

    def completed(self, done: Pass) -> None:
        """Note that every row of a pass has been routed."""
        self.routed = done
        if done.before:
            self._tell(self.everyone(), lambda connection: connection.repeated(done))

    def obey(self, command: Command) -> None:
        """Carry out a command; kinds that ask nothing of connections are passed over.

        Whom a repeated one meets may have come back since, rightly: he is to come again, and asked then.
        """
        user_id, device_id = command.user_id, command.device_id
        code = CloseCode.RESTART if command.repeated else CloseCode.NOT_ALLOWED
        if user_id is None:
            return
        match command.kind:
            case commands.USER_DELETED:
                self.close_user(user_id, code, DELETED)
                if self._on_user_deleted is not None:
                    self._on_user_deleted()
            case commands.DISCONNECT:
                # Who has come back with a newer token by now stays.
                revoked = [one for one in self.of(user_id) if one.is_revoked(command.revoked_before)]
                self._close(revoked, code, "disconnected by the host")
            case commands.DEVICE_REMOVED if device_id is not None:
                self.close_device(user_id, device_id, code, REMOVED)
            case commands.DEVICE_REPLACED if device_id is not None and command.generation is not None:
                self.replace_device(user_id, device_id, command.generation)
            case commands.LEFT_ROOM:
                self._tell(self.of(user_id), lambda connection: connection.read_again())

    def close_user(self, user_id: str, code: CloseCode, reason: str) -> None:
        """Close every connection of a user."""
        self._close(self.of(user_id), code, reason)

    def close_device(self, user_id: str, device_id: int, code: CloseCode, reason: str) -> None:
        """Close the connections of one device."""
        mine = [connection for connection in self.of(user_id) if connection.device_id == device_id]
        self._close(mine, code, reason)

    def replace_device(self, user_id: str, device_id: int, generation: int) -> None:
        """Close the connections of a device that are older than its newest one."""
        older = [
            connection
            for connection in self.of(user_id)
            if connection.device_id == device_id and connection.generation < generation
        ]
        self._close(older, CloseCode.REPLACED, REPLACED)

    def _close(self, connections: Iterable[Connection], code: CloseCode, reason: str) -> None:
        self._tell(connections, lambda connection: connection.close(code, reason))

    def _tell(self, connections: Iterable[Connection], do: Callable[[Connection], None]) -> None:
        for connection in connections:
            try:
                do(connection)
            except Exception as fault:  # noqa: BLE001 - whatever it is
                connection.abandon(fault)
