DROP FUNCTION IF EXISTS
    @schema@.notify_mood_event(),
    @schema@.notify_chat_event(),
    @schema@.notify_journal_event(),
    @schema@.notify_sync_event(),
    @schema@.notify_user_deleted(),
    @schema@.notify_device_removed(),
    @schema@.realtime_erase(integer, bigint),
    @schema@.realtime_is_member(text, text),
    @schema@.realtime_user_erased(text),
    @schema@.realtime_publish(text, text, jsonb, text, text, jsonb),
    @schema@.realtime_wake(text, text),
    @schema@.realtime_timestamp(timestamp),
    @schema@.realtime_timestamp(timestamptz);
