"""Making many objects at once: for whoever reads a whole log into memory.

Nothing of a log refers back to what holds it, so the collector of cyclic garbage finds nothing in
it; yet it looks through all of it again and again while it grows, which takes as long as decoding.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

MANY: Final = 100_000
"""Objects from which on a look through them is felt: it takes some 10 ms."""


@contextmanager
def bulk() -> Iterator[None]:
    """Hold the collector while a log is read; what it made, if it is much, it never looks at.

    For processes that read a few logs and end, such as a command: whatever garbage there is beside
    a long log stays until they do.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if gc.get_count()[0] >= MANY:
            gc.freeze()
        if was:
            gc.enable()
