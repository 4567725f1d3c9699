"""PostgreSQL to process: hear the bell, read what is committed, write down what arrived.

    bell ─▶ listener ─wake─▶ tail ─rows─▶ Outlet        catch_up ─pages─▶ one connection
                                                         connection ─confirmed─▶ receipts

Concurrency   listener, tail and receipts are one task each, started and stopped by bootstrap; a
              catch-up runs in its connection's own task, at most `concurrent_reads` at a time.
Never         a notification is data; a read waits for a client; anything is marked before it arrived.
May import    app.store, app.telemetry, app.core.
"""
