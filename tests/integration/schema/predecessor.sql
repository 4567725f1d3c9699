-- What the predecessor adds to MindVibe's tables: int ids, times without a zone in UTC, hardly any NOT NULL.
CREATE TABLE users_devices (
    id serial PRIMARY KEY,
    user_id varchar(255) REFERENCES users (id),
    device_token varchar(255) UNIQUE,
    platform varchar(20) CHECK (platform IN ('ios', 'android', 'web')),
    last_active timestamp DEFAULT now(),
    created_at timestamp DEFAULT now()
);
CREATE TABLE sync_queue (
    id serial PRIMARY KEY,
    user_id varchar(255) REFERENCES users (id),
    action_type varchar(50),
    payload jsonb,
    synced boolean DEFAULT false,
    created_at timestamp DEFAULT now()
);
CREATE TABLE realtime_events (
    id serial PRIMARY KEY,
    event_type varchar(50),
    user_id varchar(255) REFERENCES users (id),
    payload jsonb,
    delivered boolean DEFAULT false,
    created_at timestamp DEFAULT now()
);
CREATE INDEX idx_realtime_events_user ON realtime_events (user_id);

CREATE FUNCTION notify_mood_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('mood_events', json_build_object(
        'event_type', 'mood_logged', 'user_id', NEW.user_id, 'mood_score', NEW.score, 'timestamp', now())::text);
    RETURN NEW;
END
$$;
CREATE FUNCTION notify_chat_event() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('chat_events', json_build_object(
        'event_type', 'message_received', 'user_id', NEW.user_id, 'message_id', NEW.id, 'timestamp', now())::text);
    RETURN NEW;
END
$$;
CREATE TRIGGER trigger_mood_realtime AFTER INSERT ON moods
    FOR EACH ROW EXECUTE FUNCTION notify_mood_event();
CREATE TRIGGER trigger_chat_realtime AFTER INSERT ON chat_messages
    FOR EACH ROW EXECUTE FUNCTION notify_chat_event();

INSERT INTO users_devices (user_id, device_token, platform, last_active) VALUES
    ('ann', 'token-ann', 'ios', '2025-12-07 13:18:47.812'),
    ('bob', NULL, NULL, NULL),
    (NULL, 'token-of-nobody', 'web', now());
INSERT INTO sync_queue (id, user_id, action_type, payload, synced, created_at) VALUES
    (1, 'ann', 'refresh', '{"n": 1}', NULL, '2025-12-07 13:18:47.812'),
    (2, NULL, NULL, NULL, true, NULL),
    (900, 'bob', 'refresh', '{"n": 2}', false, now());
INSERT INTO realtime_events (id, event_type, user_id, payload, delivered, created_at) VALUES
    (1, 'mood_update', 'ann', '{"mood_score": 7}', true, '2025-12-07 13:18:47.812'),
    (2, 'mood_update', 'ann', '{"mood_score": 8}', NULL, NULL),
    (3, NULL, NULL, NULL, false, now()),
    (700, 'chat_message', 'bob', '{"message_id": "m1"}', false, now());
SELECT setval('sync_queue_id_seq', 900), setval('realtime_events_id_seq', 700);
