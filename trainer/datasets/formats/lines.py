"""JSON Lines: one object a line, keys in the order in which a format names them."""

from typing import Any, BinaryIO, Final

import msgspec

_encode: Final = msgspec.json.Encoder().encode


class Lines:
    """A file of lines that is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.rows = self.bytes = 0

    def line(self, value: Any) -> None:
        """One object."""
        data = _encode(value) + b"\n"
        self._file.write(data)
        self.rows += 1
        self.bytes += len(data)

    def close(self) -> None:
        """There is nothing to end."""
