CREATE SEQUENCE IF NOT EXISTS @schema@.users_devices_id_seq;
CREATE TABLE @schema@.users_devices (
    id bigint PRIMARY KEY DEFAULT nextval('@schema@.users_devices_id_seq'),
    user_id varchar(255),
    device_token varchar(255) NOT NULL CONSTRAINT users_devices_device_token_key UNIQUE,
    platform varchar(20),
    last_active timestamptz NOT NULL DEFAULT now(),
    created_at timestamptz NOT NULL DEFAULT now(),
    generation bigint NOT NULL DEFAULT 0,
    position_seen pg_snapshot,
    position_reading pg_snapshot,
    position_after_id bigint,
    position_taken_at timestamptz,
    position_incarnation text
);
ALTER SEQUENCE @schema@.users_devices_id_seq OWNED BY @schema@.users_devices.id;
COMMENT ON TABLE @schema@.users_devices IS 'Created by MindVibe Real-Time: devices and what each has got.';
