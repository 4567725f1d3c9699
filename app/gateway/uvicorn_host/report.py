"""What the host could arrange, for the log and for health."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing the service wants from its server; `missing` says in one line why it is not there."""

    name: str
    missing: str | None = None


@dataclass(frozen=True, slots=True)
class HostReport:
    """The outcome of `install`: every capability, in place or missing."""

    server: str
    capabilities: tuple[Capability, ...]
    trusted_proxies: str | None = None
    """Addresses whose X-Forwarded-For the server takes for the client's; None where it takes nobody's."""

    @property
    def confirms(self) -> bool:
        """Whether sockets of this host report pongs."""
        return self.has("confirmation")

    @property
    def missing(self) -> dict[str, str]:
        """Capabilities that are not in place, with the reason of each."""
        return {each.name: each.missing for each in self.capabilities if each.missing is not None}

    def has(self, name: str) -> bool:
        """Whether the named capability is in place."""
        return any(each.name == name and each.missing is None for each in self.capabilities)

    def __str__(self) -> str:
        present = ", ".join(each.name for each in self.capabilities if each.missing is None) or "nothing"
        absent = "; ".join(f"{name} ({reason})" for name, reason in self.missing.items())
        return f"host {self.server}: {present} in place" + (f"; missing: {absent}" if absent else "")
