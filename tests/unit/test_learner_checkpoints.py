"""Checkpoints where the disk fails, and in which order they stand."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from protocol.errors import DiskFault
from tests.learners import learner, ragged
from trainer.learner import checkpoints
from trainer.learner.learner import Learner


@pytest.fixture(scope="module")
def mine() -> Learner:
    made = learner()
    made.step(ragged([9]))
    return made


@contextmanager
def limited(size: int) -> Iterator[None]:
    """Within it, the system lets no file grow beyond so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("file", [checkpoints.WEIGHTS, checkpoints.OPTIMIZER])
@pytest.mark.parametrize("short", [1, 100, 5_000])
def test_a_disk_that_takes_no_more_is_said_and_leaves_nothing(
    mine: Learner, tmp_path: Path, file: str, short: int
) -> None:
    """Libraries have errors of their own for it, which would look like a bug."""
    size = (mine.save(tmp_path / "whole") / file).stat().st_size
    whole = mine.save(tmp_path / "kept")
    mine.steps += 1
    try:
        with limited(size - short), pytest.raises(DiskFault, match=r"kept can't .* \(EFBIG\)"):
            mine.save(tmp_path / "kept")
    finally:
        mine.steps -= 1
    assert [*(tmp_path / "kept").iterdir()] == [whole]


def test_a_model_that_can_not_be_written_is_said(mine: Learner, tmp_path: Path) -> None:
    with limited(10_000), pytest.raises(DiskFault, match=r"can't be written.*\(EFBIG\)"):
        mine.write(tmp_path)


def test_an_error_that_is_not_the_disks_stays_what_it_is(mine: Learner, tmp_path: Path) -> None:
    shared = torch.zeros(4)
    state = checkpoints.State(step=1, updates=1, version="", position=None, options=mine.options)
    with pytest.raises(RuntimeError, match="share memory"):
        checkpoints.save(
            tmp_path, state, weights={"a": shared, "b": shared}, optimizer={}, average={}
        )


def test_a_folder_that_is_none_is_said(mine: Learner, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DiskFault, match="file can't be written"):
        mine.save(tmp_path / "file")


def test_the_newest_is_that_of_most_steps_however_long_its_name(tmp_path: Path) -> None:
    for step in (99_999_999, 100_000_000, 12):
        (tmp_path / f"{step:08}").mkdir()
    found = [int(each.name) for each in checkpoints.checkpoints(tmp_path)]
    assert found == [12, 99_999_999, 100_000_000]
    assert checkpoints.last(tmp_path) == tmp_path / "100000000"
