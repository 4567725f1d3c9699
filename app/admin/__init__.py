"""What operators do over HTTP: list what was given up, and set it on its way again.

Concurrency   everything runs in its request's task.
Never         a payload or a device token in an answer; an answer to anybody without the service's token, or,
              while nothing is configured, to anybody who does not ask on this machine.
May import    app.auth, app.store, app.http, app.telemetry, app.core.
"""
