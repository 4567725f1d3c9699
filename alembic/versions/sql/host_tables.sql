-- MindVibe's tables, for a database that has none of them. Where one exists it is the host's and stays as it is.
CREATE TABLE IF NOT EXISTS @schema@.users (
    id varchar(255) PRIMARY KEY
);

CREATE TABLE IF NOT EXISTS @schema@.moods (
    id serial PRIMARY KEY,
    user_id varchar(255) NOT NULL,
    score integer NOT NULL,
    tags json,
    note text,
    at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS @schema@.chat_rooms (
    id varchar(64) PRIMARY KEY,
    slug varchar(255),
    name varchar(255),
    theme varchar(255),
    created_by varchar(255),
    created_at timestamptz NOT NULL DEFAULT now()
);

DO $$
BEGIN
    IF to_regclass('@schema@.room_participants') IS NULL THEN
        CREATE TABLE @schema@.room_participants (
            id serial PRIMARY KEY,
            room_id varchar(64) NOT NULL,
            user_id varchar(255) NOT NULL,
            joined_at timestamptz NOT NULL DEFAULT now(),
            left_at timestamptz
        );
        CREATE INDEX room_participants_room ON @schema@.room_participants (room_id, user_id);
    END IF;
END
$$;

CREATE TABLE IF NOT EXISTS @schema@.chat_messages (
    id varchar(64) PRIMARY KEY,
    room_id varchar(64),
    user_id varchar(255),
    content text,
    flagged boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE IF NOT EXISTS @schema@.journal_entries (
    id varchar(64) PRIMARY KEY,
    user_id varchar(255) NOT NULL,
    encrypted_title json,
    encrypted_content json,
    client_updated_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
