"""Every knob of the service, read once from the environment.

`app/main.py` and alembic's environment make them, and only `bootstrap` reads them; every other part is handed
plain values by its constructor. Durations are seconds, sizes are bytes unless the name says otherwise.
"""

from enum import StrEnum
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated

from pydantic import Field, PositiveFloat, PositiveInt, SecretStr, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class Environment(StrEnum):
    """Where the service runs; production refuses what only suits development."""

    DEVELOPMENT = "development"
    PRODUCTION = "production"


class Bells(StrEnum):
    """When a trigger may NOTIFY: never, only while a process sleeps (leased), or at every write."""

    ALWAYS = "always"
    LEASED = "leased"
    OFF = "off"


Days = Annotated[float, Field(gt=0, le=36500, description="days")]
Seconds = Annotated[PositiveFloat, Field(le=86400, description="seconds")]


class Settings(BaseSettings):
    """Settings of one process; each field is the environment variable of the same name."""

    model_config = SettingsConfigDict(hide_input_in_errors=True, extra="ignore", frozen=True)

    environment: Environment = Environment.DEVELOPMENT
    allowed_origins: str | None = None
    """Web pages that may connect, as `https://app.example,https://www.example`; `*`: all, without a key."""
    forwarded_allow_ips: str = "127.0.0.1,::1"
    """Proxies whose X-Forwarded-For is believed: addresses and networks; `*`: everybody's.

    Read by uvicorn itself; here it is only checked.
    """

    database_url: SecretStr | None = None
    """`postgresql://` or `postgresql+asyncpg://`; unset means the embedded PostgreSQL."""
    listen_database_url: SecretStr | None = None
    """A direct address for LISTEN where `database_url` leads to a pooler."""
    embedded_folder: Path = Path(".mindvibe")
    """Where the embedded PostgreSQL keeps its data."""
    pool_size: PositiveInt = 5
    """Connections of the pool; the listener has one more of its own."""

    jwt_secret: SecretStr | None = None
    """What the issuer signs tokens with too (HS256), at least 32 bytes; without any key nobody is asked."""
    jwt_public_key_file: Path | None = None
    """The issuer's public key in PEM (RS256, ES256 or EdDSA)."""
    jwt_jwks_url: str | None = None
    """Where the issuer publishes its keys."""
    jwt_issuer: str | None = None
    jwt_audience: str | None = None
    jwt_user_claim: str = "sub"
    """The claim that says whose a token is."""
    jwt_leeway: Annotated[float, Field(ge=0, le=300, description="seconds")] = 2.0
    """How far the issuer's clock and ours may differ; a token is taken for so much longer than it says."""
    jwks_max_age: Seconds = 600.0
    """Between two fetches of the issuer's keys."""
    jwks_cooldown: Seconds = 30.0
    """Before they are fetched again, for a token of an unknown key too, or after a failure."""
    service_token: SecretStr | None = None
    """What operators and the host show, at least 32 characters."""

    bells: Bells = Bells.LEASED
    bell_lease: Seconds = 3.0
    sweep_interval: Seconds = 1.0
    busy_above: PositiveFloat = 0.7
    """Share of its time that reading row by row would take, above which the tail reads without sleeping."""
    busy_below: PositiveFloat = 0.35
    """Share of its time below which it sleeps again."""
    overlap: Seconds = 300.0
    """How far before a position's time rows are read again after a database restart."""

    catch_up_page: PositiveInt = 500
    catch_up_page_bytes: PositiveInt = 1 << 20
    concurrent_reads: PositiveInt = 8
    window: Annotated[PositiveInt, Field(le=1000)] = 256
    """Messages in flight per connection; a client may acknowledge each of them at the same time."""
    window_bytes: PositiveInt = 1 << 20
    queue: PositiveInt = 256
    """Live messages waiting per connection."""
    queue_bytes: PositiveInt = 1 << 20

    receipts_interval: Seconds = 0.05
    receipts_batch: PositiveInt = 500

    heartbeat_interval: Seconds = 20.0
    heartbeat_patience: Seconds = 20.0
    takes_nothing_after: Seconds = 60.0
    sse_heartbeat_interval: Seconds = 15.0
    """Of silence after which an SSE stream gets a comment."""
    sse_confirmed_after: Seconds = 60.0
    """How long an SSE stream must live on after a message for it to count as delivered."""
    ack_timeout: Seconds = 60.0
    """How long a client that acks may acknowledge nothing before the oldest message is sent again."""
    nack_pause: Seconds = 5.0
    """Before a refused message is sent again for the first time; doubles with each refusal."""
    handshake_timeout: Seconds = 10.0
    half_open_per_process: PositiveInt = 1000
    """Connections that have not completed a request; beyond it the late are dropped, the oldest first."""
    drain_window: Seconds = 8.0
    attempts_per_address: PositiveInt = 300
    """Attempts to connect, and refused requests, per minute from one public address (IPv6: one /64)."""
    url_size: PositiveInt = 8000
    """The longest path with its query."""
    head_size: PositiveInt = 32 << 10
    """The longest head of a request: its first line and its headers."""
    body_size: PositiveInt = 1 << 20
    """The largest body of a request: reading JSON keeps everybody else waiting."""
    body_timeout: Seconds = 30.0
    """How long a request's body may take to arrive."""
    message_size: PositiveInt = 64 << 10
    """The largest message taken from a client."""
    inbound_rate: Annotated[PositiveInt, Field(le=400)] = 20
    """Messages per second taken from one connection."""
    requests_per_user: PositiveInt = 600
    """HTTP requests per minute of one user, on one process."""
    connections_per_user: PositiveInt = 20
    """To all processes together, as far as they have told each other."""
    connections_per_process: PositiveInt = 15_000

    stale_after: Seconds = 30.0
    """Age at which an undelivered row of a connected user is sent again."""
    retention_days: Days = 7
    undelivered_days: Days = 30
    dead_letter_days: Days = 90
    synced_days: Days = 7
    unsynced_days: Days = 30
    device_days: Days = 90

    stale_interval: Seconds = 5.0
    """Between two looks for stale rows and for sync rows to drain."""
    beat_interval: Seconds = 5.0
    """Between two heartbeats of this process in `realtime_processes`."""
    bells_interval: Seconds = 5.0
    """Between two looks at the notification queue."""
    triggers_interval: Seconds = 60.0
    """Between two inspections of the triggers."""
    erase_interval: Seconds = 10.0
    """Between two looks for rows of deleted users; a deletion heard of is seen to at once."""
    housekeeping_interval: Seconds = 300.0
    """Between two rounds of expiring, purging and forgetting."""

    @property
    def silence_believed(self) -> float:
        """Seconds for which a process counts as alive that says nothing."""
        return 3 * self.beat_interval

    @field_validator("forwarded_allow_ips")
    @classmethod
    def _are_addresses(cls, text: str) -> str:
        """Refuse what uvicorn would take for a name that nobody has, without a word."""
        if text.strip() != "*":
            for one in text.split(","):
                ip_network(one.strip())
        return text
