DROP VIEW IF EXISTS @schema@.realtime_delivery;
DROP SEQUENCE IF EXISTS @schema@.realtime_ring_until;
DROP TABLE IF EXISTS
    @schema@.realtime_commands,
    @schema@.realtime_processes,
    @schema@.realtime_dead_letters,
    @schema@.realtime_redeliveries,
    @schema@.realtime_reporters,
    @schema@.realtime_tickets,
    @schema@.realtime_incarnation,
    @schema@.realtime_ancestors,
    @schema@.realtime_retention;
