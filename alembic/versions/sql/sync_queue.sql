CREATE TABLE @schema@.sync_queue (
    id bigint PRIMARY KEY DEFAULT nextval('@schema@.realtime_id_seq'),
    user_id varchar(255),
    action_type varchar(50) NOT NULL,
    payload jsonb NOT NULL,
    synced boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    synced_at timestamptz,
    next_attempt_at timestamptz,
    attempts smallint NOT NULL DEFAULT 0,
    device_id bigint,
    key varchar(255)
);
COMMENT ON TABLE @schema@.sync_queue IS 'Created by MindVibe Real-Time: what mobile devices have to be told.';
