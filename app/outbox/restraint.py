"""How a reader of very many rows leaves time to everybody else.

What follows the first page comes in small parts, so that nobody waits long for the end of one, and after each
the reader rests. By how long the part took to be read that follows the machine, and how busy it is: what it
costs to send the part, and to write down that it came, is about as much again.
"""

PART = 100
"""Rows that are read and sent at once."""
RESTS = 8.0
"""How many times as long as a part took to be read."""
LONGEST_REST = 0.05
"""Seconds."""


def rest(took: float) -> float:
    """Seconds to wait after a part that took so many seconds to be read."""
    return min(RESTS * took, LONGEST_REST)
