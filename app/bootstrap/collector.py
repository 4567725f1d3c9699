"""How Python's collector of cycles is kept from stopping everybody for a tenth of a second and more.

A full collection looks at every object there is: more than a hundred thousand that are made at start and stay
to the end, and about 25 for each connection. It comes whenever their number has grown by a quarter, so in the
middle of a crowd that connects. Reference counts free nearly everything, connections above all, without it.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (2_500, 1, 200)
"""What is young a quarter as often as Python 3.11 collects it, the survivors of two such collections at once.

Its ten would stop everybody for 50 to 90 ms, again and again while a crowd connects. What is old is not
looked at before some fifteen thousand have.
"""


@contextmanager
def spared() -> Iterator[None]:
    """Leave what exists by now out of all collections, and collect everything else rarely."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
