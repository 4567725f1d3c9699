"""What the service needs from the server it runs under, arranged from inside the application.

uvicorn is found behind its own SIGTERM handler during lifespan start-up, and then: WebSockets are carried by
our own socket (pongs are reported, a peer that stopped reading can be dropped), half-open handshakes are
reaped, no query string reaches a log, and a signal first drains the connections.

Concurrency   Everything runs on the event loop; only the signal handler does not, and it only calls
              `call_soon_threadsafe`.
Never         A uvicorn that differs from the one we know must not stop the service: whatever does not fit is
              left out and named in the `HostReport`.
May import    uvicorn and websockets (nothing else of the service may), `app.gateway.socket`, `app.core`.

    inside.py      what is touched inside uvicorn, and the check that it is there
    install.py     puts the parts below in place and reports
    handshake.py   uvicorn's WebSocket protocol up to the accept
    live.py        the socket that takes over after it
    inbound.py     bytes -> messages, without I/O
    requests.py    uvicorn's HTTP protocol with limits on half-open handshakes
    half_open.py   how many of these there may be
    turnstile.py   how many of a crowd are let in at a time
    peers.py       who is at the other end, whatever a proxy says
    quiet_logs.py  no query string in any log
    drain.py       signals: stop accepting, drain, exit with 0
"""

from .inside import find_server
from .install import install
from .options import HostOptions
from .report import Capability, HostReport

__all__ = ["Capability", "HostOptions", "HostReport", "find_server", "install"]
