CREATE TABLE @schema@.realtime_events (
    id bigint PRIMARY KEY DEFAULT nextval('@schema@.realtime_id_seq'),
    event_type varchar(50) NOT NULL,
    user_id varchar(255) NOT NULL,
    payload jsonb NOT NULL,
    delivered boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    delivered_at timestamptz,
    next_attempt_at timestamptz,
    attempts smallint NOT NULL DEFAULT 0,
    room_id varchar(64),
    collapse_key varchar(255),
    trace jsonb,
    settled_as varchar(20),
    redriven_at timestamptz
);
COMMENT ON TABLE @schema@.realtime_events IS 'Created by MindVibe Real-Time: the outbox.';
