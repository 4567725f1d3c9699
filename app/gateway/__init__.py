"""Process to client: connections, and whatever carries them.

    tail ─rows─▶ hub ─▶ connection ─bytes─▶ socket        connection ─confirmed─▶ receipts

Concurrency   everything runs on the loop and returns at once; a connection has a task only while it
              reads a page of its catch-up.
Never         one connection makes another wait; a row is sent to a connection of another user.
May import    app.core, app.telemetry, app.http, app.request_limits; uvicorn and websockets only in
              uvicorn_host. No SQL.
"""
