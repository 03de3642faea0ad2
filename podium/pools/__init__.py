"""Pools that are shipped.

`offline` needs no key and no network; it is what `podium run` uses by default. A pool is a TOML
file that names its workers; `OFFLINE` is the path of the shipped one. `consolidation` has workers
for any pool, which make one of several answers.
"""

from pathlib import Path
from typing import Final

OFFLINE: Final = Path(__file__).with_name("offline.toml")
"""The pool that is used when none is named."""

__all__ = ["OFFLINE"]
