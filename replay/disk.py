"""A file that can't be had: whether the disk or the system fails, or what it holds is damaged."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeGuard

from protocol.errors import Denied, DiskFault, PodiumError

_DAMAGE: Final = frozenset({errno.ENOENT, errno.EINVAL})
"""Of these the file is the cause: it isn't there, or names a place in itself that can't be."""


def is_fault(error: Exception) -> TypeGuard[OSError]:
    """Whether a read failed for the disk or the system, and not for what the file holds.

    Libraries raise `OSError` for damage, too: without the number that only the system gives.
    """
    return isinstance(error, OSError) and error.errno is not None and error.errno not in _DAMAGE


def fault(what: str, error: OSError) -> Denied | DiskFault:
    """What the disk or the system said, as one of ours.

    Args:
        what: Which file, and what could not be done with it.
        error: As it was raised.
    """
    code = errno.errorcode.get(error.errno or 0, "no number")
    text = f"{what}: {error.strerror or error} ({code})"
    if isinstance(error, PermissionError):
        return Denied(text, hint="whose file is it, and who runs this command?")
    return DiskFault(
        text,
        hint="the disk or the system fails, and what the file holds may be sound: see the system's "
        "log (dmesg), then try again",
    )


def raise_fault(path: Path | str, error: Exception) -> None:
    """Raise `fault` where a read failed by one; else nothing, for it is damage."""
    if is_fault(error):
        raise fault(f"{path} can't be read", error) from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Whatever the disk or the system fails in is `fault`; what isn't there stays an `OSError`."""
    try:
        yield
    except OSError as error:
        raise_fault(path, error)
        raise


@contextmanager
def only_one(path: Path, refusal: PodiumError) -> Iterator[None]:
    """Hold the lock of a file, which is made if it is missing and stays; the kernel lets go of it.

    Args:
        path: The file. Who removed it would leave two who have opened it.
        refusal: What is raised where somebody else holds it.
    """
    import fcntl

    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refusal from None
        yield


__all__ = ["fault", "is_fault", "only_one", "raise_fault", "reading"]
