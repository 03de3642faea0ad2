"""What Ray's driver hears of whoever started it."""

import os

from actors.ray_cluster import READ_BYTES, _Lines


def test_what_is_said_while_it_starts_is_heard_when_it_has_started() -> None:
    reading, writing = os.pipe()
    try:
        lines = _Lines(reading)
        assert not lines.listen(0)
        long = READ_BYTES // 2 * b"x"
        os.write(writing, b"first\n" + long)
        assert lines.listen(0)
        assert not lines.listen(0)
        os.write(writing, b"second\nrest")
        assert [lines.next(0) for _ in range(3)] == [b"first", long + b"second", None]
        assert not lines.ended
        os.close(writing)
        assert lines.next(None) is None
        assert lines.ended
    finally:
        os.close(reading)
