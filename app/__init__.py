"""MindVibe Real-Time: durable delivery from PostgreSQL to the client's screen.

Data flows one way: a trigger writes an event into the outbox, `outbox` reads it when woken,
`gateway` sends it, `outbox.receipts` records that it arrived. `bootstrap` is the only package that
knows every part; `core` is pure and knows none.
"""
