"""Devices over HTTP: register, list, remove; and the lookup when one connects.

Never         a device token in an answer or a log line.
May import    app.auth, app.store, app.http, app.telemetry, app.core.
"""
