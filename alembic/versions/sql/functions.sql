-- All of them run as their owner with a fixed search_path: a caller's temporary table or function of the same
-- name is never used. Nobody may call them but who is granted to (ops/grants.sql); firing a trigger needs no right.

-- Where a result is not needed it is assigned all the same: PERFORM would start the executor for each call, which
-- costs a bulk insert a third of its speed.

-- A time as messages carry it: UTC, milliseconds, Z. What cannot be written so is the time of the call.
-- Without a search_path of its own, so that it is inlined; everything in it is qualified instead.
CREATE OR REPLACE FUNCTION @schema@.realtime_timestamp(moment timestamptz) RETURNS text
LANGUAGE sql VOLATILE
AS $$
    SELECT pg_catalog.to_char(
        CASE WHEN pg_catalog.isfinite(moment) THEN moment ELSE pg_catalog.clock_timestamp() END AT TIME ZONE 'UTC',
        'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'
    )
$$;

-- Times without a zone are taken as UTC.
CREATE OR REPLACE FUNCTION @schema@.realtime_timestamp(moment timestamp) RETURNS text
LANGUAGE sql VOLATILE
AS $$
    SELECT @schema@.realtime_timestamp(moment AT TIME ZONE 'UTC')
$$;

-- Ring the bell of a channel for users, where that is wanted and safe; returns whether it rings. A row whose bell
-- was not rung is found by the sweep.
CREATE OR REPLACE FUNCTION @schema@.realtime_wake(channel text, VARIADIC user_ids text[]) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
DECLARE
    user_id text;
    rung text;
BEGIN
    -- One expression, since each is prepared anew by every transaction. The sequence has no value, and so is not
    -- less, until the first setval and after a crash: then bells ring. A listener that sits in a transaction lets
    -- the queue of notifications fill until every notifying commit fails; to ask is also what frees it once the
    -- culprit has gone.
    IF current_setting('realtime.bells', true) = 'off'
       OR pg_sequence_last_value('@schema@.realtime_ring_until') < date_part('epoch', clock_timestamp()) * 1000
       OR pg_notification_queue_usage() >= 0.5 THEN
        RETURN false;
    END IF;
    FOREACH user_id IN ARRAY user_ids LOOP
        -- Equal bells of one transaction collapse, so after a hundred the rest of a bulk write is one bell.
        rung := current_setting('realtime.rung', true);
        IF rung ~ '^[0-9]{1,2}$' OR rung IS NULL OR rung = '' THEN
            PERFORM set_config('realtime.rung', (coalesce(nullif(rung, ''), '0')::integer + 1)::text, true);
            PERFORM pg_notify(channel, json_build_object('user_id', user_id)::text);
        ELSE
            PERFORM pg_notify(channel, '{}');
            EXIT;
        END IF;
    END LOOP;
    RETURN true;
END
$$;

-- Write an event in the caller's transaction; returns its id. Raises 22023 for what could not be delivered.
CREATE OR REPLACE FUNCTION @schema@.realtime_publish(
    user_id text,
    event_type text,
    payload jsonb,
    channel text DEFAULT 'realtime_events',
    collapse_key text DEFAULT NULL,
    trace jsonb DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    room text;
    event_id bigint;
    rung boolean;
BEGIN
    IF user_id IS NULL OR length(user_id) NOT BETWEEN 1 AND 255 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_publish: user_id must have 1 to 255 characters',
            HINT = 'Pass the id of the user who is to get the event, as in users.id.';
    END IF;
    IF event_type IS NULL OR length(event_type) NOT BETWEEN 1 AND 50 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_publish: event_type must have 1 to 50 characters',
            HINT = 'It becomes the message''s "type", such as ''badge_earned''.';
    END IF;
    IF event_type IN ('connected', 'ping', 'pong', 'error', 'sync', 'reconnect', 'ack', 'nack', 'auth',
                      'authenticated', 'token_expiring') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('realtime_publish: event_type %L is reserved for the protocol', event_type),
            HINT = 'Choose a name of your own; clients could not tell yours from the server''s.';
    END IF;
    IF channel IS NULL OR channel NOT IN ('mood_events', 'chat_events', 'journal_events', 'realtime_events') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('realtime_publish: there is no channel %L', channel),
            HINT = 'Use realtime_events (the default), mood_events, chat_events or journal_events.';
    END IF;
    IF payload IS NULL OR jsonb_typeof(payload) <> 'object' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_publish: payload must be a JSON object',
            HINT = 'It becomes the message''s "data"; wrap other values: {"value": 7}.';
    END IF;
    IF octet_length(payload::text) > 65536 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('realtime_publish: payload has %s bytes, more than 65536', octet_length(payload::text)),
            HINT = 'Send an id and let the client fetch the rest.';
    END IF;
    IF length(collapse_key) NOT BETWEEN 1 AND 255 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_publish: collapse_key must have 1 to 255 characters',
            HINT = 'Leave it out where every event counts.';
    END IF;
    IF jsonb_typeof(trace) <> 'object' OR octet_length(trace::text) > 4096 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_publish: trace must be a JSON object of at most 4096 bytes',
            HINT = 'It carries trace headers, such as {"traceparent": "..."}.';
    END IF;
    IF channel = 'chat_events' THEN
        room := payload ->> 'room_id';
        IF length(room) NOT BETWEEN 1 AND 64 THEN
            RAISE invalid_parameter_value USING
                MESSAGE = 'realtime_publish: payload.room_id must have 1 to 64 characters',
                HINT = 'On chat_events it names the room whose members may see the event.';
        END IF;
    END IF;
    INSERT INTO @schema@.realtime_events (event_type, user_id, payload, room_id, collapse_key, trace)
    VALUES (event_type, user_id, payload, room, collapse_key, trace)
    RETURNING id INTO event_id;
    rung := @schema@.realtime_wake(channel, user_id);
    RETURN event_id;
END
$$;

-- Close all connections of a user, on every process, and let in no token that was issued before: by default before
-- now. Issuers count whole seconds, so a token of that very second may be the user's next one and is let in; to keep
-- that out too, give a time a second from now. Raises 22023 for a time that is none, or is far from now.
CREATE OR REPLACE FUNCTION @schema@.realtime_disconnect(
    user_id text, revoked_before timestamptz DEFAULT clock_timestamp()
) RETURNS void
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    rung boolean;
BEGIN
    IF user_id IS NULL OR length(user_id) NOT BETWEEN 1 AND 255 THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_disconnect: user_id must have 1 to 255 characters',
            HINT = 'Pass the id of the user who is to be disconnected, as in users.id.';
    END IF;
    IF revoked_before IS NULL OR NOT isfinite(revoked_before)
       OR revoked_before > clock_timestamp() + interval '1 hour' THEN
        RAISE invalid_parameter_value USING
            MESSAGE = 'realtime_disconnect: revoked_before must be a time, at most an hour from now',
            HINT = 'Leave it out: tokens that were issued before now are let in no longer.';
    END IF;
    INSERT INTO @schema@.realtime_commands (kind, user_id, detail)
    VALUES ('disconnect', user_id, jsonb_build_object('revoked_before', date_part('epoch', revoked_before)));
    rung := @schema@.realtime_wake('realtime_events', user_id);
END
$$;

-- Whether the user was deleted and has not come back under the same id.
CREATE OR REPLACE FUNCTION @schema@.realtime_user_erased(user_id text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM @schema@.realtime_commands c
        WHERE c.user_id = realtime_user_erased.user_id AND c.kind = 'user_deleted'
    ) AND NOT EXISTS (
        SELECT FROM @schema@.users u WHERE u.id = realtime_user_erased.user_id
    )
$$;

-- Which of these events their users may see now: those of no room, of a room they are in, and what they posted
-- themselves to a room that they never were in. The service has no right to look into the host's rooms itself.
CREATE OR REPLACE FUNCTION @schema@.realtime_may_see(event_ids bigint[]) RETURNS SETOF bigint
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
    SELECT e.id
    FROM @schema@.realtime_events e
    LEFT JOIN @schema@.room_participants p ON p.room_id = e.room_id AND p.user_id = e.user_id
    WHERE e.id = ANY (event_ids)
    GROUP BY e.id
    HAVING e.room_id IS NULL
        OR bool_or(p.user_id IS NOT NULL AND p.left_at IS NULL)
        OR (count(p.user_id) = 0 AND e.payload ->> 'sender_id' = e.user_id)
$$;

-- Remove up to `batch` rows of deleted users: of those whose deletion has a command above `after_id` that is not
-- marked erased, a bounded number of them. `next_after` is where to go on, null when no such command follows. Of
-- a user who came back under the same id only what was written before the deletion goes. Rows locked elsewhere
-- are skipped.
--
-- A command is marked once nothing of its user is left and nobody can commit rows from before the deletion any
-- more. Who could had its transaction id before the command was committed, which its first visitor sees done: so
-- that visitor leaves its own id, and once all below that have ended, what they wrote can be seen. (The command's
-- own xid would not do: whoever deletes may have had it long before.)
CREATE OR REPLACE FUNCTION @schema@.realtime_erase(
    batch integer, after_id bigint, OUT removed bigint, OUT next_after bigint
)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
-- Most users looked for have no row at all; a plan that hopes to meet one soon would read the whole table.
SET enable_seqscan = off
SET plan_cache_mode = force_generic_plan
AS $$
DECLARE
    visits CONSTANT integer := 500;
    -- Before any row is looked at: what ended by then is seen below.
    ended_below CONSTANT xid8 := pg_snapshot_xmin(pg_current_snapshot());
    gone record;
    visited integer := 0;
    now_removed bigint;
BEGIN
    removed := 0;
    FOR gone IN
        SELECT c.id, c.user_id, c.created_at, (c.detail ->> 'visited_in')::xid8 AS visited_in
        FROM @schema@.realtime_commands c
        WHERE c.kind = 'user_deleted' AND (c.detail -> 'erased') IS NULL AND c.user_id IS NOT NULL
          AND c.id > after_id
        ORDER BY c.id LIMIT visits
    LOOP
        -- By an array, not by a join: one whose statistics say that a table is empty, while an old snapshot keeps
        -- what it held, would go through all of that for each user.
        -- Ids of events, sync rows and commands come from one sequence. Whether the user is back is asked in the
        -- snapshot that deletes: else rows of a user who returns at this moment would go.
        DELETE FROM @schema@.realtime_events e WHERE e.id = ANY (ARRAY(
            SELECT e.id FROM @schema@.realtime_events e
            WHERE e.user_id = gone.user_id
              AND (e.id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
            LIMIT batch - removed FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS now_removed = ROW_COUNT;
        removed := removed + now_removed;

        DELETE FROM @schema@.sync_queue s WHERE s.id = ANY (ARRAY(
            SELECT s.id FROM @schema@.sync_queue s
            WHERE s.user_id = gone.user_id
              AND (s.id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
            LIMIT batch - removed FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS now_removed = ROW_COUNT;
        removed := removed + now_removed;

        DELETE FROM @schema@.realtime_dead_letters l WHERE l.id = ANY (ARRAY(
            SELECT l.id FROM @schema@.realtime_dead_letters l
            WHERE l.user_id = gone.user_id
              AND (l.event_id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
            LIMIT batch - removed FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS now_removed = ROW_COUNT;
        removed := removed + now_removed;

        DELETE FROM @schema@.realtime_redeliveries r WHERE r.id = ANY (ARRAY(
            SELECT r.id FROM @schema@.realtime_redeliveries r
            WHERE r.user_id = gone.user_id
              AND (r.event_id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
            LIMIT batch - removed FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS now_removed = ROW_COUNT;
        removed := removed + now_removed;

        DELETE FROM @schema@.realtime_tickets t WHERE t.hash = ANY (ARRAY(
            SELECT t.hash FROM @schema@.realtime_tickets t
            WHERE t.user_id = gone.user_id
              AND (t.created_at < gone.created_at
                   OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
            LIMIT batch - removed FOR UPDATE SKIP LOCKED
        ));
        GET DIAGNOSTICS now_removed = ROW_COUNT;
        removed := removed + now_removed;

        IF removed >= batch THEN
            next_after := gone.id - 1;
            RETURN;
        END IF;
        -- A visit of another cluster's, from a dump: here it says nothing.
        IF gone.visited_in IS NULL OR gone.visited_in >= pg_snapshot_xmax(pg_current_snapshot()) THEN
            UPDATE @schema@.realtime_commands c
            SET detail = jsonb_build_object('visited_in', pg_current_xact_id()::text)
            WHERE c.id = gone.id;
        ELSIF gone.visited_in <= ended_below AND NOT EXISTS (
            SELECT FROM @schema@.realtime_events e
            WHERE e.user_id = gone.user_id
              AND (e.id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
        ) AND NOT EXISTS (
            SELECT FROM @schema@.sync_queue s
            WHERE s.user_id = gone.user_id
              AND (s.id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
        ) AND NOT EXISTS (
            SELECT FROM @schema@.realtime_dead_letters l
            WHERE l.user_id = gone.user_id
              AND (l.event_id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
        ) AND NOT EXISTS (
            SELECT FROM @schema@.realtime_redeliveries r
            WHERE r.user_id = gone.user_id
              AND (r.event_id < gone.id OR NOT EXISTS (SELECT FROM @schema@.users u WHERE u.id = gone.user_id))
        ) THEN
            UPDATE @schema@.realtime_commands c SET detail = '{"erased": true}' WHERE c.id = gone.id;
        END IF;
        visited := visited + 1;
        IF visited = visits THEN
            next_after := gone.id;
        END IF;
    END LOOP;
END
$$;

-- Whether what was given up can be sent again: to a device, or with null to the whole user. Its row is there, the
-- user was not deleted and may see it still, the device is the user's still, and no newer event replaced it.
CREATE OR REPLACE FUNCTION @schema@.realtime_is_redrivable(event_id bigint, device_id bigint) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
    SELECT EXISTS (
        SELECT FROM @schema@.realtime_events e
        WHERE e.id = realtime_is_redrivable.event_id
          AND (e.settled_as IS NULL OR e.settled_as IN ('expired', 'dead'))
          AND (realtime_is_redrivable.device_id IS NULL OR EXISTS (
              SELECT FROM @schema@.users_devices d
              WHERE d.id = realtime_is_redrivable.device_id AND d.user_id = e.user_id
          ))
          AND e.user_id <> '' AND NOT @schema@.realtime_user_erased(e.user_id)
          AND EXISTS (SELECT @schema@.realtime_may_see(ARRAY[e.id]))
    ) OR EXISTS (
        SELECT FROM @schema@.sync_queue s
        JOIN @schema@.users_devices d ON d.user_id = s.user_id
        WHERE s.id = realtime_is_redrivable.event_id AND d.id = realtime_is_redrivable.device_id
    )
$$;

-- Dead letters above `after_id` in the order of their ids, at most 1000: of everybody, or of one user. Never a payload.
-- `event_type` is 'sync' for a row of sync_queue; it and `created_at` are null when the row is gone.
CREATE OR REPLACE FUNCTION @schema@.realtime_list_dead_letters(
    of_user text DEFAULT NULL, after_id bigint DEFAULT 0, at_most integer DEFAULT 100
) RETURNS TABLE (
    id bigint, event_id bigint, user_id text, device_id bigint, reason text, detail text, attempts integer,
    dead_at timestamptz, event_type text, created_at timestamptz, is_redrivable boolean
)
LANGUAGE sql STABLE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
    WITH chosen AS MATERIALIZED (
        (SELECT l.* FROM @schema@.realtime_dead_letters l
         WHERE of_user IS NULL AND l.id > after_id
         ORDER BY l.id LIMIT least(greatest(at_most, 0), 1000))
        UNION ALL
        (SELECT l.* FROM @schema@.realtime_dead_letters l
         WHERE l.user_id = of_user AND l.id > after_id
         ORDER BY l.id LIMIT least(greatest(at_most, 0), 1000))
    )
    SELECT c.id, c.event_id, c.user_id, c.device_id, c.reason, c.detail, c.attempts, c.dead_at,
           coalesce(e.event_type, CASE WHEN s.id IS NOT NULL THEN 'sync' END),
           coalesce(e.created_at, s.created_at),
           @schema@.realtime_is_redrivable(c.event_id, c.device_id)
    FROM chosen c
    LEFT JOIN @schema@.realtime_events e ON e.id = c.event_id
    LEFT JOIN @schema@.sync_queue s ON s.id = c.event_id
    ORDER BY c.id
$$;

-- Set what a dead letter is about on its way again and remove the letter; false, with the letter left as it is, when
-- that cannot be done (see `is_redrivable`). Nobody is waited for: raises 55P03 when somebody holds what it needs.
--
-- What was given up for one device is due to that device only. An event that was given up for the whole user becomes
-- as if written now, but for its id and timestamp: by its new xid it is unseen to every position.
CREATE OR REPLACE FUNCTION @schema@.realtime_redrive(letter_id bigint) RETURNS boolean
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
SET lock_timeout = '500ms'
AS $$
DECLARE
    letter record;
    owner text;
BEGIN
    SELECT l.event_id, l.device_id INTO letter
    FROM @schema@.realtime_dead_letters l WHERE l.id = letter_id FOR UPDATE NOWAIT;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF letter.device_id IS NULL THEN
        -- Held before it is judged, so that it stays as it was judged.
        SELECT e.user_id INTO owner
        FROM @schema@.realtime_events e WHERE e.id = letter.event_id FOR UPDATE NOWAIT;
    ELSE
        SELECT d.user_id INTO owner FROM @schema@.users_devices d WHERE d.id = letter.device_id;
    END IF;
    IF NOT @schema@.realtime_is_redrivable(letter.event_id, letter.device_id) THEN
        RETURN false;
    END IF;
    IF letter.device_id IS NULL THEN
        UPDATE @schema@.realtime_events e
        SET settled_as = NULL, delivered = false, delivered_at = NULL, attempts = 0, next_attempt_at = NULL,
            redriven_at = clock_timestamp(), xid = pg_current_xact_id()
        WHERE e.id = letter.event_id;
        -- Every device gets it now, those too that gave it up before.
        DELETE FROM @schema@.realtime_redeliveries r WHERE r.event_id = letter.event_id;
        DELETE FROM @schema@.realtime_dead_letters l WHERE l.event_id = letter.event_id;
        PERFORM @schema@.realtime_wake('realtime_events', owner);
    ELSE
        INSERT INTO @schema@.realtime_redeliveries (event_id, user_id, device_id, first_at, next_attempt_at)
        VALUES (letter.event_id, owner, letter.device_id, now(), now())
        ON CONFLICT ON CONSTRAINT realtime_redeliveries_event_device DO UPDATE
        SET attempts = 0, nacks = 0, detail = NULL, first_at = now(), next_attempt_at = now();
        DELETE FROM @schema@.realtime_dead_letters l WHERE l.id = letter_id;
    END IF;
    RETURN true;
END
$$;

-- Redrive up to `at_most` dead letters of a user, the first ones first; returns how many that were.
CREATE OR REPLACE FUNCTION @schema@.realtime_redrive_all(of_user text, at_most integer DEFAULT 1000)
RETURNS bigint
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
    WITH chosen AS MATERIALIZED (
        SELECT l.id FROM @schema@.realtime_dead_letters l
        WHERE l.user_id = of_user AND @schema@.realtime_is_redrivable(l.event_id, l.device_id)
        ORDER BY l.id LIMIT greatest(at_most, 0)
    )
    SELECT count(*) FROM chosen WHERE @schema@.realtime_redrive(chosen.id)
$$;

-- The triggers' functions. A host's write never fails because of us: what could not be delivered is passed over.
-- They know what they write, so they insert by themselves: what `realtime_publish` would check, and another call of
-- a function, take as long as the row.

CREATE OR REPLACE FUNCTION @schema@.notify_mood_event() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
DECLARE
    rung boolean;
BEGIN
    IF length(NEW.user_id) BETWEEN 1 AND 255 THEN
        INSERT INTO @schema@.realtime_events (event_type, user_id, payload)
        VALUES (
            'mood_update',
            NEW.user_id,
            jsonb_build_object(
                'event_type', 'mood_logged',
                'user_id', NEW.user_id,
                'mood_score', NEW.score,
                'timestamp', @schema@.realtime_timestamp(NEW.at)
            )
        );
        rung := @schema@.realtime_wake('mood_events', NEW.user_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.notify_chat_event() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
DECLARE
    message jsonb;
    recipients text[];
    rung boolean;
BEGIN
    IF length(NEW.id) > 255 OR length(NEW.room_id) NOT BETWEEN 1 AND 64 OR length(NEW.user_id) > 255 THEN
        RETURN NULL;
    END IF;
    message := jsonb_build_object(
        'event_type', 'message_received',
        'message_id', NEW.id,
        'timestamp', @schema@.realtime_timestamp(NEW.created_at)
    );
    IF NEW.room_id IS NOT NULL THEN
        message := message || jsonb_build_object('room_id', NEW.room_id, 'sender_id', NEW.user_id);
    END IF;
    -- No row of users is touched or locked here; the order is the same for everyone who writes to the room.
    WITH written AS (
        INSERT INTO @schema@.realtime_events (event_type, user_id, payload, room_id)
        SELECT 'chat_message', m.user_id, message || jsonb_build_object('user_id', m.user_id), NEW.room_id
        FROM (
            SELECT NEW.user_id AS user_id
            UNION
            SELECT p.user_id FROM @schema@.room_participants p
            WHERE p.room_id = NEW.room_id AND p.left_at IS NULL
        ) m
        WHERE length(m.user_id) BETWEEN 1 AND 255
        ORDER BY m.user_id COLLATE "C"
        RETURNING user_id
    )
    SELECT array_agg(user_id) INTO recipients FROM written;
    IF recipients IS NOT NULL THEN
        rung := @schema@.realtime_wake('chat_events', VARIADIC recipients);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.notify_journal_event() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
DECLARE
    rung boolean;
BEGIN
    IF length(NEW.user_id) BETWEEN 1 AND 255 AND length(NEW.id) <= 255 THEN
        INSERT INTO @schema@.realtime_events (event_type, user_id, payload)
        VALUES (
            'journal_update',
            NEW.user_id,
            jsonb_build_object(
                'event_type', 'entry_created',
                'user_id', NEW.user_id,
                'entry_id', NEW.id,
                'timestamp', @schema@.realtime_timestamp(NEW.created_at)
            )
        );
        rung := @schema@.realtime_wake('journal_events', NEW.user_id);
    END IF;
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.notify_sync_event() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
DECLARE
    rung boolean;
BEGIN
    rung := @schema@.realtime_wake('sync_events', NEW.user_id);
    RETURN NULL;
END
$$;

CREATE OR REPLACE FUNCTION @schema@.notify_user_deleted() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
BEGIN
    IF length(OLD.id) BETWEEN 1 AND 255 THEN
        INSERT INTO @schema@.realtime_commands (kind, user_id) VALUES ('user_deleted', OLD.id);
        PERFORM @schema@.realtime_wake('realtime_events', OLD.id);
    END IF;
    RETURN NULL;
END
$$;

-- What waits in memory for somebody who leaves a room is looked at again.
CREATE OR REPLACE FUNCTION @schema@.notify_room_left() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
BEGIN
    IF OLD.left_at IS NOT NULL
       OR length(OLD.user_id) NOT BETWEEN 1 AND 255 OR length(OLD.room_id) NOT BETWEEN 1 AND 64 THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.left_at IS NULL
       AND NEW.room_id IS NOT DISTINCT FROM OLD.room_id AND NEW.user_id IS NOT DISTINCT FROM OLD.user_id THEN
        RETURN NULL;
    END IF;
    INSERT INTO @schema@.realtime_commands (kind, user_id, room_id)
    VALUES ('left_room', OLD.user_id, OLD.room_id);
    PERFORM @schema@.realtime_wake('realtime_events', OLD.user_id);
    RETURN NULL;
END
$$;

-- What is still due to the device is left to retention: the host deletes users through this trigger, and must not meet
-- a row that the service holds.
CREATE OR REPLACE FUNCTION @schema@.notify_device_removed() RETURNS trigger
LANGUAGE plpgsql VOLATILE SECURITY DEFINER
SET search_path = @schema@, pg_temp
AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND OLD.user_id IS NOT DISTINCT FROM NEW.user_id THEN
        RETURN NULL;
    END IF;
    INSERT INTO @schema@.realtime_commands (kind, user_id, device_id)
    VALUES ('device_removed', OLD.user_id, OLD.id);
    PERFORM @schema@.realtime_wake('realtime_events', OLD.user_id);
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION
    @schema@.realtime_timestamp(timestamptz),
    @schema@.realtime_timestamp(timestamp),
    @schema@.realtime_wake(text, text[]),
    @schema@.realtime_publish(text, text, jsonb, text, text, jsonb),
    @schema@.realtime_disconnect(text, timestamptz),
    @schema@.realtime_user_erased(text),
    @schema@.realtime_may_see(bigint[]),
    @schema@.realtime_erase(integer, bigint),
    @schema@.realtime_is_redrivable(bigint, bigint),
    @schema@.realtime_list_dead_letters(text, bigint, integer),
    @schema@.realtime_redrive(bigint),
    @schema@.realtime_redrive_all(text, integer),
    @schema@.notify_mood_event(),
    @schema@.notify_chat_event(),
    @schema@.notify_journal_event(),
    @schema@.notify_sync_event(),
    @schema@.notify_user_deleted(),
    @schema@.notify_room_left(),
    @schema@.notify_device_removed()
FROM PUBLIC;
