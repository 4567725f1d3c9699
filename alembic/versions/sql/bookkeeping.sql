-- The durable control plane: what every process has to do to its connections.
CREATE TABLE IF NOT EXISTS @schema@.realtime_commands (
    id bigint PRIMARY KEY DEFAULT nextval('@schema@.realtime_id_seq'),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    kind varchar(30) NOT NULL,
    user_id varchar(255),
    device_id bigint,
    room_id varchar(64),
    detail jsonb,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT realtime_commands_kind CHECK
        (kind IN ('disconnect', 'device_removed', 'device_replaced', 'left_room', 'user_deleted'))
);
CREATE INDEX IF NOT EXISTS realtime_commands_xid ON @schema@.realtime_commands (xid);
CREATE INDEX IF NOT EXISTS realtime_commands_user ON @schema@.realtime_commands (user_id)
    WHERE kind IN ('user_deleted', 'disconnect');
CREATE INDEX IF NOT EXISTS realtime_commands_to_erase ON @schema@.realtime_commands (id)
    WHERE kind = 'user_deleted' AND (detail -> 'erased') IS NULL;

CREATE TABLE IF NOT EXISTS @schema@.realtime_processes (
    id uuid PRIMARY KEY,
    host text NOT NULL,
    pid integer NOT NULL,
    started_at timestamptz NOT NULL DEFAULT now(),
    seen_at timestamptz NOT NULL DEFAULT now(),
    stats jsonb
);

CREATE TABLE IF NOT EXISTS @schema@.realtime_dead_letters (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id bigint NOT NULL,
    user_id varchar(255),
    device_id bigint,
    reason varchar(30) NOT NULL,
    detail varchar(200),
    attempts integer NOT NULL DEFAULT 0,
    dead_at timestamptz NOT NULL DEFAULT now(),
    -- Also the index by event.
    CONSTRAINT realtime_dead_letters_event_device UNIQUE NULLS NOT DISTINCT (event_id, device_id)
);
CREATE INDEX IF NOT EXISTS realtime_dead_letters_user ON @schema@.realtime_dead_letters (user_id, id);

-- What a device, or a user's connections without one, had and did not acknowledge: how often it was in the way when
-- a connection ended (attempts), how often it could not be processed (nacks), and when it is sent again although
-- the position has gone on (next_attempt_at; null where the position has not).
CREATE TABLE IF NOT EXISTS @schema@.realtime_redeliveries (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id bigint NOT NULL,
    user_id varchar(255) NOT NULL,
    device_id bigint,
    attempts smallint NOT NULL DEFAULT 0,
    nacks smallint NOT NULL DEFAULT 0,
    detail varchar(200),
    first_at timestamptz NOT NULL DEFAULT now(),
    next_attempt_at timestamptz,
    CONSTRAINT realtime_redeliveries_event_device UNIQUE NULLS NOT DISTINCT (event_id, device_id)
);
CREATE INDEX IF NOT EXISTS realtime_redeliveries_user ON @schema@.realtime_redeliveries (user_id);
CREATE INDEX IF NOT EXISTS realtime_redeliveries_due ON @schema@.realtime_redeliveries (next_attempt_at)
    WHERE next_attempt_at IS NOT NULL;

-- The last report of each process on what its readers refused, left or settled: one whose COMMIT was not answered is
-- written again and counts once. The number before tells the two apart although each writes, and so waits for standbys.
CREATE TABLE IF NOT EXISTS @schema@.realtime_reporters (
    id uuid PRIMARY KEY,
    report bigint NOT NULL,
    report_before bigint,
    reported_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

-- What stands for a token where none can be sent: for 30 seconds and one use, or as a cookie for as long as the token.
CREATE TABLE IF NOT EXISTS @schema@.realtime_tickets (
    hash bytea PRIMARY KEY,
    user_id varchar(255) NOT NULL,
    -- When the token was issued and expires, in unix seconds as the token says it.
    issued_at double precision,
    expires_at double precision NOT NULL,
    single_use boolean NOT NULL,
    good_until timestamptz NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX IF NOT EXISTS realtime_tickets_good_until ON @schema@.realtime_tickets (good_until);
CREATE INDEX IF NOT EXISTS realtime_tickets_user ON @schema@.realtime_tickets (user_id);

-- Unlogged on purpose: whatever may give a transaction id out twice (a crash, a promotion, a rewind) empties it.
CREATE UNLOGGED TABLE IF NOT EXISTS @schema@.realtime_incarnation (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    id uuid NOT NULL DEFAULT gen_random_uuid()
);

CREATE TABLE IF NOT EXISTS @schema@.realtime_ancestors (
    system_identifier bigint,
    database_oid bigint,
    first_seen timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (system_identifier, database_oid)
);

CREATE TABLE IF NOT EXISTS @schema@.realtime_retention (
    single boolean PRIMARY KEY DEFAULT true CHECK (single),
    purged_through timestamptz NOT NULL DEFAULT '-infinity'
);
INSERT INTO @schema@.realtime_retention DEFAULT VALUES ON CONFLICT DO NOTHING;

-- Until when bells are wanted, in unix milliseconds. A sequence, since setval writes no xid and no WAL when it
-- is unlogged and is seen at once; it starts at "always", so that a database nobody serves yet still rings.
CREATE UNLOGGED SEQUENCE IF NOT EXISTS @schema@.realtime_ring_until MINVALUE 0 START 9223372036854775807;

-- What each device has got, as an operator asks for it. What it could not process says more than its position, which
-- has gone on; a letter of the whole user says less, since a device may have been there before. What nobody has had
-- no position covers: it passed over it, or the row was brought from another cluster, where all positions have it.
CREATE OR REPLACE VIEW @schema@.realtime_delivery AS
SELECT e.id AS event_id,
       e.user_id,
       d.id AS device_id,
       d.platform,
       CASE
           WHEN EXISTS (
               SELECT FROM @schema@.realtime_redeliveries r
               WHERE r.event_id = e.id AND r.device_id = d.id AND r.next_attempt_at IS NOT NULL
           ) THEN 'pending'
           WHEN EXISTS (
               SELECT FROM @schema@.realtime_dead_letters l WHERE l.event_id = e.id AND l.device_id = d.id
           ) THEN 'dead'
           WHEN NOT coalesce(e.delivered, true) AND e.settled_as IS NULL THEN 'pending'
           WHEN NOT coalesce(e.delivered, true) AND e.settled_as IN ('collapsed', 'left_room') THEN e.settled_as::text
           WHEN pg_visible_in_snapshot(e.xid, d.position_seen)
               OR (e.id <= d.position_after_id AND pg_visible_in_snapshot(e.xid, d.position_reading))
               THEN 'received'
           -- A letter of an event that somebody had is about connections without a device.
           WHEN e.settled_as IS NOT NULL AND EXISTS (
               SELECT FROM @schema@.realtime_dead_letters l WHERE l.event_id = e.id AND l.device_id IS NULL
           ) THEN 'dead'
           ELSE 'pending'
       END AS state,
       e.created_at
FROM @schema@.realtime_events e
JOIN @schema@.users_devices d ON d.user_id = e.user_id;
