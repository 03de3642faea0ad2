"""The benchmark of reading from the archive measures what it says."""

from pathlib import Path

from benchmarks.replay_archive import measure


def test_every_turn_reads_the_whole_run(tmp_path: Path) -> None:
    events, size, turns = measure(tmp_path, 500, 2)
    assert events >= 500
    assert size > 1_000
    assert len(turns) == 2
    assert all(seconds >= 0 for turn in turns for seconds in turn)
