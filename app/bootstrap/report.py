"""What this process tells of itself: of delivery and of clients in health, and in its heartbeat."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from app.gateway.addresses import Forwarding
from app.gateway.elsewhere import Elsewhere
from app.gateway.hub import Hub
from app.gateway.origins import ANY, Origins
from app.gateway.uvicorn_host import HostReport
from app.lifecycle import Part
from app.outbox.receipts import Receipts
from app.outbox.tail import Tail
from app.settings import Settings
from app.sync.waiters import Waiters
from app.telemetry.state import State


def delivery(settings: Settings, hub: Hub, waiters: Waiters, host: HostReport, *, is_draining: bool) -> State:
    """How many are delivered to and in which way, and why nobody more should come."""
    details = {
        "confirmation": "ping" if host.confirms else "transport",
        "sse_confirmation": "acknowledged" if host.has("acknowledgements") else "transport",
        "connections": hub.count,
        "waiting": waiters.count,
        "limits": {
            "connections": settings.connections_per_process,
            "connections_per_user": settings.connections_per_user,
            "message_bytes": settings.message_size,
            "attempts_per_address": settings.attempts_per_address,
        },
        "missing": host.missing,
    }
    reasons = []
    if is_draining:
        reasons.append("this process is going away")
    if hub.count >= settings.connections_per_process:
        reasons.append("this process takes no more connections")
    return State(details, tuple(reasons), ready=not reasons)


def clients(origins: Origins, forwarding: Forwarding) -> State:
    """From where clients come, as far as this process knows."""
    return State(
        {
            "origins": ANY if origins.anyone else sorted(origins.listed),
            "trusted_proxies": forwarding.trusted,
            "ignored_forwarding_headers": forwarding.ignored,
        }
    )


def parts(parts: Iterable[Part]) -> State:
    """Which loops failed lately and were started again."""
    failing = {part.name: part.state().reasons for part in parts}
    reasons = tuple(reason for told in failing.values() for reason in told)
    return State({"failing": [name for name, told in failing.items() if told]}, reasons)


@dataclass(frozen=True, slots=True)
class Stats:
    """What the heartbeat tells of this process."""

    hub: Hub
    waiters: Waiters
    elsewhere: Elsewhere
    tail: Tail
    receipts: Receipts

    def __call__(self) -> dict[str, Any]:
        """Count it now."""
        return {
            "connections": self.hub.count,
            "waiting": self.waiters.count,
            "users": len(self.hub.users),
            "crowds": self.elsewhere.crowds(self.hub.users),
            "rows_per_second": round(self.tail.rows_per_second, 1),
            "receipts_unwritten": self.receipts.unwritten,
        }
