"""Sync over HTTP, for an app that is woken in the background: read, wait, acknowledge, upload.

    GET ─▶ reader.read ─▶ answer          nothing there and `wait`: a place among the waiters
                                          tail ─wake─▶ waiter ─▶ read again ─▶ answer
    POST ack ─▶ acks ─▶ rows, position    POST ─▶ uploads ─▶ sync_queue

Concurrency   everything runs in its request's task. One that waits holds its place and nothing else.
Never         reading changes anything; an ack marks a row of another user or moves a position back; an
              upload's bad item fails the others; the host waits for an upload longer than half a second.
May import    app.auth, app.store, app.http, app.telemetry, app.core. It reads by what bootstrap hands it.
"""
