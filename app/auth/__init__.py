"""Who somebody is, by a token, and what only the host and its operators may do.

    scope ─▶ credentials ─▶ tokens (keys, jwks) | tickets ─▶ revocations ─▶ Identity

Concurrency   everything runs in the task that asks, but for the fetch of a key server's keys, which is one
              task however many ask. Nothing here blocks the loop.
Never         a token, a ticket or a key in a log line, an error or an answer; a key for two algorithms.
May import    app.store, app.telemetry, app.http, app.request_limits, app.core.
"""
