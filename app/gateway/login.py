"""Who a connection is by its token: one that ends, can be revoked, and renewed while the connection lives."""

import asyncio
import logging
import time
from datetime import UTC, datetime

from app.core import inbound, messages
from app.core.actions import Action, Authenticated, ExpiresSoon
from app.core.close_codes import CloseCode
from app.core.identity import Denied, Identity, NotAllowed
from app.core.reads import Unavailable
from app.core.session import Session
from app.gateway.greeting import Greeting
from app.gateway.ports import Doorkeeper
from app.gateway.socket import Socket

log = logging.getLogger(__name__)

CANNOT_LOOK = inbound.Rejected("unavailable", "The token cannot be looked at just now; send it again.")


class Login:
    """The token of one connection; there is none where nobody is asked for one."""

    __slots__ = ("_doorkeeper", "_greeting", "_identity", "_is_to_be_told", "_number", "_socket")

    def __init__(
        self,
        number: int,
        identity: Identity,
        doorkeeper: Doorkeeper | None,
        greeting: Greeting,
        socket: Socket,
    ) -> None:
        self._number = number
        self._identity = identity
        self._doorkeeper = doorkeeper
        self._greeting = greeting
        self._socket = socket
        self._is_to_be_told = False

    def ends_at(self) -> float:
        """When the token is taken no longer, on the loop's clock."""
        return asyncio.get_running_loop().time() + self._identity.expires_at - time.time()

    def is_revoked(self, revoked_before: float | None) -> bool:
        """Whether it counts no longer when tokens from before that time, in unix seconds, do not."""
        return self._identity.is_revoked(revoked_before)

    def tell_of(self, action: Authenticated | ExpiresSoon) -> None:
        """Tell the client that its new token was taken, or that the one it has is about to end."""
        if isinstance(action, Authenticated):
            now, user_id = datetime.now(UTC), self._identity.user_id
            self._greeting.tell(messages.authenticated(user_id, action.expires_in, now))
        else:
            self._is_to_be_told = True
            self.tell_what_waits()

    def tell_what_waits(self) -> None:
        """Tell that the token is about to end, once `connected` was said, which comes first."""
        if self._is_to_be_told and self._greeting.is_said:
            self._is_to_be_told = False
            self._socket.send(messages.token_expiring(self._identity.expires_at - time.time()))

    async def renew(self, token: str, session: Session) -> list[Action]:
        """Look at the client's new token; returns what the session makes of it."""
        now = asyncio.get_running_loop().time
        try:
            if self._doorkeeper is None:
                return session.not_renewed(inbound.NO_AUTH, now())
            self._identity = await self._doorkeeper.renew(self._identity, token)
            self._is_to_be_told = False
            return session.renewed(self.ends_at(), now())
        except NotAllowed as denied:
            self._greeting.tell(messages.error(denied.code, denied.message))
            return session.close(CloseCode.NOT_ALLOWED, denied.code)
        except Denied as denied:
            return session.not_renewed(inbound.Rejected(denied.code, denied.message), now())
        except Unavailable:
            return session.not_renewed(CANNOT_LOOK, now())
        except Exception:
            log.exception("connection %s cannot look at a token", self._number)
            return session.close(CloseCode.INTERNAL_ERROR, "internal error")
