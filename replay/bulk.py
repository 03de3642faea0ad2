"""Making many objects at once: for whoever reads a whole log into memory.

Nothing of a log refers back to what holds it, so the collector of cyclic garbage finds nothing in
it; yet it looks through all of it again and again while it grows, which takes as long as decoding.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bulk() -> Iterator[None]:
    """Hold the collector while a log is read; what is there at the end it never looks at again.

    For processes that read a few logs and end, such as a command: whatever garbage there is by
    then stays until they do.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if was:
            gc.enable()
