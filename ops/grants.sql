-- What the two roles need besides a login, for a service that does not run as the owner of the tables:
--
--   psql "$DATABASE_URL" -v host_role=mindvibe_api -v service_role=mindvibe_realtime -f ops/grants.sql
--
-- An operator's role, if there is one (-v operator_role=mindvibe_operator), may see what became of events, redrive
-- dead letters and disconnect users, and nothing else.
--
-- Run it as the role that ran the migrations, after each of them; it can be run again. Triggers need no right
-- at all: a role that may insert a mood thereby causes its event.

\set ON_ERROR_STOP on
SELECT current_schema() AS schema, pg_get_serial_sequence('users_devices', 'id') AS device_ids \gset
BEGIN;

-- The host publishes events of its own, disconnects users, queues rows for mobile devices and reads what those
-- upload (rows with a device_id and a key). It cannot write the outbox, and the columns that decide when a row is seen (id, xid, attempts) are not its to set.
GRANT USAGE ON SCHEMA :"schema" TO :"host_role";
GRANT EXECUTE ON FUNCTION
      realtime_publish(text, text, jsonb, text, text, jsonb),
      realtime_disconnect(text, timestamptz)
      TO :"host_role";
GRANT INSERT (user_id, action_type, payload, synced, created_at, device_id, key),
      SELECT (id, user_id, action_type, payload, synced, created_at, device_id, key)
      ON sync_queue TO :"host_role";
GRANT USAGE ON SEQUENCE realtime_id_seq TO :"host_role";

-- The service has its own tables, and no right on any table of the host's.
GRANT USAGE ON SCHEMA :"schema" TO :"service_role";
GRANT SELECT, INSERT, UPDATE, DELETE
      ON realtime_events, sync_queue, users_devices, realtime_commands, realtime_processes,
         realtime_dead_letters, realtime_redeliveries, realtime_reporters, realtime_tickets, realtime_incarnation,
         realtime_ancestors, realtime_retention
      TO :"service_role";
GRANT SELECT ON realtime_delivery, realtime_alembic_version TO :"service_role";
GRANT USAGE ON SEQUENCE realtime_id_seq, :device_ids TO :"service_role";
GRANT SELECT, UPDATE ON SEQUENCE realtime_ring_until TO :"service_role";
GRANT EXECUTE ON FUNCTION
      realtime_publish(text, text, jsonb, text, text, jsonb),
      realtime_disconnect(text, timestamptz),
      realtime_wake(text, text[]),
      realtime_timestamp(timestamptz),
      realtime_timestamp(timestamp),
      realtime_user_erased(text),
      realtime_may_see(bigint[]),
      realtime_erase(integer, bigint),
      realtime_is_redrivable(bigint, bigint),
      realtime_list_dead_letters(text, bigint, integer),
      realtime_redrive(bigint),
      realtime_redrive_all(text, integer)
      TO :"service_role";

\if :{?operator_role}
GRANT USAGE ON SCHEMA :"schema" TO :"operator_role";
GRANT SELECT ON realtime_delivery TO :"operator_role";
GRANT EXECUTE ON FUNCTION
      realtime_list_dead_letters(text, bigint, integer),
      realtime_redrive(bigint),
      realtime_redrive_all(text, integer),
      realtime_disconnect(text, timestamptz)
      TO :"operator_role";
\endif

COMMIT;
