"""Python's cycle collector, held off while many messages are read.

Messages make no cycles, and all of them stay: the collector would walk over what was read so far
again and again, and find nothing. Over 100,000 events that is a quarter of the time.
"""

import contextlib
import gc
from collections.abc import Iterator
from typing import Final

MANY: Final = 100_000
"""Objects from which on a look through them is felt: it takes some 10 ms."""


@contextlib.contextmanager
def held_off(*, for_good: bool = False) -> Iterator[None]:
    """No collection until the end of the block. What runs out of references goes as ever.

    Of two blocks at a time, in threads, the first to end lets the collector go on: that costs time,
    and nothing else.

    Args:
        for_good: What the block made, if it is much, is never looked at: for a command, which reads
            a few logs and ends.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if for_good and gc.get_count()[0] >= MANY:
            gc.freeze()
        gc.enable()
