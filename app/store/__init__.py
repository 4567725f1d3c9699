"""All SQL, one verb per statement.

Concurrency   functions borrow a connection of the pool for one statement or one transaction.
Never         a transaction that stays open while somebody else is waited for; a snapshot taken after
              the rows, in a transaction that has an xid, or on a standby.
May import    app.core, app.telemetry.
"""
