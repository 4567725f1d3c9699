"""Faults under load: what writers committed against what each client processed, while things break.

`load` writes and keeps the record of it, `clients` read and keep what they processed, `injector` breaks things
in the `world` (a PostgreSQL, three processes of the service, proxies between), and `checker`, which knows
nothing of all this, compares. A `chapter` is one such run, from a seed; `run` makes many of them.
"""
