-- A MindVibe database as its own migrations leave it: more columns than the service knows, keys, rows.
CREATE TABLE users (
    id varchar(255) PRIMARY KEY,
    email text UNIQUE,
    created_at timestamp DEFAULT now()
);
CREATE TABLE moods (
    id serial PRIMARY KEY,
    user_id varchar(255) NOT NULL REFERENCES users (id),
    score integer NOT NULL CHECK (score BETWEEN 1 AND 10),
    tags json,
    note text,
    at timestamptz DEFAULT now(),
    weather text DEFAULT 'fair'
);
CREATE INDEX ON moods (user_id, at);
CREATE TABLE chat_rooms (
    id varchar(64) PRIMARY KEY,
    slug text UNIQUE,
    name text,
    theme text,
    created_by varchar(255) REFERENCES users (id),
    created_at timestamp DEFAULT now()
);
CREATE TABLE room_participants (
    id serial PRIMARY KEY,
    room_id varchar(64) NOT NULL REFERENCES chat_rooms (id),
    user_id varchar(255) NOT NULL REFERENCES users (id),
    joined_at timestamp DEFAULT now(),
    left_at timestamp,
    role text DEFAULT 'member'
);
CREATE TABLE chat_messages (
    id varchar(64) PRIMARY KEY,
    room_id varchar(64) REFERENCES chat_rooms (id),
    user_id varchar(255) REFERENCES users (id),
    content text,
    flagged boolean DEFAULT false,
    created_at timestamp DEFAULT now()
);
CREATE TABLE journal_entries (
    id varchar(64) PRIMARY KEY,
    user_id varchar(255) NOT NULL REFERENCES users (id),
    encrypted_title json,
    encrypted_content json,
    client_updated_at timestamp,
    created_at timestamp DEFAULT now(),
    updated_at timestamp DEFAULT now()
);
CREATE TABLE badges (
    id serial PRIMARY KEY,
    user_id varchar(255) REFERENCES users (id)
);
CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY);
INSERT INTO alembic_version VALUES ('5f1ab0c4d2e3');

INSERT INTO users (id, email) VALUES ('ann', 'ann@example.org'), ('bob', 'bob@example.org');
INSERT INTO moods (user_id, score, note) VALUES ('ann', 7, 'sunny'), ('bob', 3, 'tired');
INSERT INTO chat_rooms (id, name) VALUES ('garden', 'Garden');
INSERT INTO room_participants (room_id, user_id) VALUES ('garden', 'ann'), ('garden', 'bob');
INSERT INTO chat_messages (id, room_id, user_id, content) VALUES ('m1', 'garden', 'ann', 'hello');
INSERT INTO journal_entries (id, user_id, encrypted_title) VALUES ('e1', 'bob', '{"sealed": "x"}');
INSERT INTO badges (user_id) VALUES ('ann');
