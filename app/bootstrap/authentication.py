"""Who may do what: keys of tokens, the service token, pages that may connect, proxies that are believed."""

import logging

from app.auth import choice
from app.auth.caller import Callers
from app.auth.choice import Misconfigured, Sources
from app.auth.doorkeeper import Doorkeeper
from app.auth.keys import Keys
from app.auth.revocations import Revocations
from app.auth.service import ServiceAccess
from app.auth.tickets import Tickets
from app.auth.tokens import Tokens
from app.core.addresses import trusts_everybody
from app.core.allowance import Allowance
from app.gateway.origins import Origins
from app.preparation import StartupError
from app.request_limits import RequestsPerUser
from app.settings import Environment, Settings
from app.store.database import Database

log = logging.getLogger(__name__)

MINUTE = 60.0


def keys_and_access(settings: Settings) -> tuple[Keys | None, ServiceAccess]:
    """What tokens are proved by, None where nobody is asked for one; and what operators may do.

    Raises StartupError.
    """
    secret, token = settings.jwt_secret, settings.service_token
    sources = Sources(
        None if secret is None else secret.get_secret_value(),
        settings.jwt_public_key_file,
        settings.jwt_jwks_url,
        max_age=settings.jwks_max_age,
        cooldown=settings.jwks_cooldown,
    )
    needing_keys = {"JWT_ISSUER": settings.jwt_issuer, "JWT_AUDIENCE": settings.jwt_audience}
    try:
        keys = choice.choose_keys(
            sources,
            in_production=settings.environment is Environment.PRODUCTION,
            other_settings=[name for name, value in needing_keys.items() if value is not None],
        )
        access = choice.service_access(
            None if token is None else token.get_secret_value(), is_open=keys is None
        )
    except Misconfigured as error:
        raise StartupError(f"cannot start: {error}") from error
    return keys, access


def origins(settings: Settings, *, is_open: bool) -> Origins:
    """Whose pages may connect; everybody's while nobody has to say who they are, and then only."""
    if settings.allowed_origins is None:
        return Origins(anyone=is_open)
    try:
        listed = Origins.parse(settings.allowed_origins)
    except ValueError as error:
        raise StartupError(str(error)) from error
    if listed.anyone and not is_open:
        raise StartupError("ALLOWED_ORIGINS: * is refused where tokens are asked for; list your pages")
    return listed


def callers(settings: Settings, database: Database, keys: Keys | None, tickets: Tickets) -> Callers:
    """Who is asked who they are: everybody that connects or calls, or nobody, which is worth a warning."""
    tokens = None
    if keys is None:
        log.warning("%s; %s", choice.OPEN.upper(), choice.HOW)
    else:
        tokens = Tokens(
            keys,
            issuer=settings.jwt_issuer,
            audience=settings.jwt_audience,
            user_claim=settings.jwt_user_claim,
            leeway=settings.jwt_leeway,
        )
    doorkeeper = Doorkeeper(tokens, tickets, Revocations(database))
    return Callers(doorkeeper, RequestsPerUser(Allowance(settings.requests_per_user, MINUTE)))


def check_proxies(settings: Settings, trusted: str) -> None:
    """Refuse in production what undoes every limit per address; raises StartupError."""
    if settings.environment is Environment.PRODUCTION and trusts_everybody(trusted):
        raise StartupError(
            f"cannot start: FORWARDED_ALLOW_IPS is {trusted}, by which in production anybody could choose"
            " the address that is counted; name your proxies, or the network they are in, as 10.0.0.0/8"
        )
