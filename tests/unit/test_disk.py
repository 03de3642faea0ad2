"""A fault of the disk or the system, told from a file that is damaged."""

import errno
import os

import pyarrow as pa
import pytest

from protocol.errors import Denied, DiskFault, InvalidData
from replay.disk import raise_fault

DAMAGE = [
    OSError("Corrupt snappy compressed data."),
    OSError(errno.EINVAL, "Invalid argument"),
    FileNotFoundError(errno.ENOENT, "No such file or directory"),
    pa.ArrowInvalid("no magic bytes"),
    InvalidData("it is none"),
]


@pytest.mark.parametrize("error", DAMAGE, ids=repr)
def test_damage_is_no_fault(error: Exception) -> None:
    raise_fault("data/part", error)


def test_a_fault_names_the_file_and_what_the_system_said() -> None:
    with pytest.raises(DiskFault) as caught:
        raise_fault("data/part", OSError(errno.EIO, os.strerror(errno.EIO)))
    assert caught.value.message == "data/part can't be read: Input/output error (EIO)"
    assert (caught.value.kind, caught.value.exit_code) == ("unreachable", 5)


def test_who_may_not_read_is_denied() -> None:
    with pytest.raises(Denied, match=r"data/part can't be read: .* \(EACCES\)") as caught:
        raise_fault("data/part", PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    assert "whose file" in caught.value.hint
