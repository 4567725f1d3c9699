"""What has to happen again and again: redeliver, drain, expire, purge, erase, watch.

    every process       redeliver, drain, refused, heartbeat, devices seen, bells, triggers
    one at a time       expire, purge, forget devices, erase: each batch under an advisory lock

Concurrency   one task per job while it runs, never two of the same job; `Scheduler` starts and ends them.
Never         a job that fails stops another; a transaction longer than one small batch; a wait for a
              row that somebody holds, since the host's cascades would wait for us in turn.
May import    app.store, app.telemetry, app.core.
"""
