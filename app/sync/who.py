"""On whose behalf a request is, and the device it names."""

from dataclasses import dataclass

from app.core.messages import Message
from app.core.token import Holder
from app.store.devices import KnownDevice
from app.sync.ports import Devices


class UnknownDevice(Exception):  # noqa: N818 - what the client said, not a mistake
    """The user has no device with this token."""


@dataclass(frozen=True, slots=True)
class Who:
    """A user, and one of the user's devices if it was named."""

    user_id: str
    device: KnownDevice | None = None

    @property
    def device_id(self) -> int | None:
        """The device's id."""
        return None if self.device is None else self.device.id

    @property
    def takes_sync(self) -> bool:
        """Whether sync rows are for this device."""
        return self.device is not None and self.device.takes_sync

    @property
    def holder(self) -> Holder:
        """Whose the positions are that this one is given."""
        return Holder(self.user_id, self.device_id if self.takes_sync else None)

    def gets(self, message: Message) -> bool:
        """Whether a row of the user is for this device, which gets none of what it uploaded."""
        return not message.is_sync or (self.takes_sync and message.origin != self.device_id)


async def look_up(devices: Devices, user_id: str, device_token: str | None) -> Who:
    """Find out who asks; raises UnknownDevice and Unavailable."""
    if device_token is None:
        return Who(user_id)
    device = await devices.find(user_id, device_token)
    if device is None:
        raise UnknownDevice
    return Who(user_id, device)
