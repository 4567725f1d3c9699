"""The rules of delivery as pure values and state machines.

Concurrency   none: nothing here awaits, sleeps or reads a clock; callers tell the time.
Never         SQL, sockets, asyncio, logging, randomness.
May import    the standard library's pure parts and each other.
"""
