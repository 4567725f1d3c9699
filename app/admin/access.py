"""Who may use the operators' endpoints: who has the service's token.

While there is no authentication of any kind it is somebody on this machine. A proxy on this machine makes
everybody look as if here, so whoever was forwarded is refused; and a browser here acts for the pages it
shows, so a page of another origin is refused, under whatever name it reaches us. A proxy that says nothing
of itself cannot be told from an operator: the README says what to do about it.
"""

from collections.abc import Callable
from urllib.parse import urlsplit

from fastapi import Request
from starlette.datastructures import Headers

from app.auth.service import ServiceAccess, Standing
from app.core.addresses import is_loopback, peer_of, tells_of_a_proxy
from app.http import problem

_CALL_HERE = "call this on the machine of the service, at its loopback address"


def operators_only(access: Callable[[], ServiceAccess]) -> Callable[[Request], None]:
    """Let only an operator through: answers 401, 403 `not_allowed`, 403 `loopback_only`."""

    def operator(request: Request) -> None:
        match access().standing(request):
            case Standing.TRUSTED:
                return
            case Standing.NO_TOKEN:
                message = "Give the service's token: `Authorization: Bearer` and SERVICE_TOKEN."
                raise problem(401, "unauthorized", message, {"WWW-Authenticate": 'Bearer realm="operators"'})
            case Standing.WRONG_TOKEN:
                raise problem(403, "not_allowed", "This is not the service's token.")
            case Standing.CLOSED:
                message = "This is for operators, who need a SERVICE_TOKEN, and none is set."
                raise problem(403, "not_allowed", message)
            case Standing.UNGUARDED:
                _only_here(request)

    return operator


def _only_here(request: Request) -> None:
    refusal = why_not(peer_of(request.scope), request.headers)
    if refusal is not None:
        raise problem(403, "loopback_only", f"{refusal}; {_CALL_HERE}, by a command and without a proxy.")


def why_not(peer: str | None, headers: Headers) -> str | None:
    """Why a request with this peer address and these headers is not an operator's; None when it is."""
    forwarded = [name for name in headers if tells_of_a_proxy(name)]
    if forwarded:
        return f"A proxy forwarded this request ({', '.join(sorted(set(forwarded)))})"
    if not is_loopback(peer):
        return "This request came from another machine"
    if "origin" in headers or headers.get("sec-fetch-site", "none") not in {"none", "same-origin"}:
        return "A page in a browser made this request"
    host = urlsplit(f"//{headers.get('host', '')}").hostname or ""
    if host != "localhost" and not is_loopback(host):
        return "This request is to a name that is not this machine's own"
    return None
