"""Checkpoints: folders from which training goes on as if it had never stopped.

::

    FOLDER/
        00000012/                named after the step, in as many digits as it needs
            model.safetensors    the trained weights, or the adapter's
            average.safetensors  their average, if one is kept
            optimizer.pt         moments; read without running code (``weights_only``)
            trainer_state.json   step, updates, version, position, options; the hash of each file

One is written under a name that nobody reads, and renamed when all of it is on the disk. Random
numbers need no state: those of a step are a function of ``(seed, step)``, and so is the order of
data (`trainer.learner.order`).
"""

import os
import re
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path
from typing import Any, Final

import msgspec
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from protocol.actions import Json
from protocol.errors import Conflict, InvalidData
from replay.disk import fault, raise_fault
from trainer.learner.options import Options

KEEP: Final = 3
"""Checkpoints that are kept: one to go on from, and two to go back to."""

WEIGHTS: Final = "model.safetensors"
AVERAGE: Final = "average.safetensors"
OPTIMIZER: Final = "optimizer.pt"
STATE: Final = "trainer_state.json"

_DRAFT: Final = ".draft-"

_NUMBER: Final = re.compile(r"\(os error (\d+)\)")
"""Of the system's error, in a message of Rust's."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    """Where a learner is."""

    step: int
    updates: int
    version: str
    """The published version of these weights; "" if they are none."""
    position: Json
    """Where whoever feeds it is: in a log, in a file."""
    options: Options
    ended: bool = False
    """Whether whoever watched has ended the training there."""
    files: dict[str, str] = {}
    """SHA-256 (hex) of each other file."""


class Saved(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint that was read."""

    state: State
    weights: dict[str, Any]
    optimizer: dict[str, Any]
    average: dict[str, Any]


def save(
    folder: Path,
    state: State,
    *,
    weights: Mapping[str, torch.Tensor],
    optimizer: Mapping[str, Any],
    average: Mapping[str, torch.Tensor],
    keep: int = KEEP,
) -> Path:
    """Write a checkpoint; where it is.

    Raises:
        Conflict: There is another one of that step.
        Denied, DiskFault: The disk is full, or the folder can't be written.
    """
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        # Of a writer that was killed: there is one at a time.
        for left in folder.glob(f"{_DRAFT}*"):
            shutil.rmtree(left, ignore_errors=True)
        draft = folder / f"{_DRAFT}{secrets.token_hex(8)}"
        draft.mkdir()
        try:
            _tensors(draft / WEIGHTS, weights)
            if average:
                _tensors(draft / AVERAGE, average)
            with (draft / OPTIMIZER).open("wb") as opened:  # by a path, no reason is given
                torch.save(dict(optimizer), opened)
            files = {file.name: _hash(file) for file in sorted(draft.iterdir())}
            state = msgspec.structs.replace(state, files=files)
            (draft / STATE).write_bytes(msgspec.json.encode(state))
            for file in (*draft.iterdir(), draft):
                _synced(file)
            path = folder / f"{state.step:08}"
            if path.exists():
                if _state(path) != state:
                    raise Conflict(
                        f"{path} is a checkpoint of another training",
                        hint="name another folder, or resume from this one",
                    )
                return path
            draft.rename(path)
            _synced(folder)
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    for old in checkpoints(folder)[: -max(keep, 1)]:
        shutil.rmtree(old, ignore_errors=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints of a folder, oldest first."""
    if not folder.is_dir():
        return []
    found = (each for each in folder.iterdir() if each.name.isdecimal() and each.is_dir())
    return sorted(found, key=lambda each: int(each.name))


def last(folder: Path) -> Path | None:
    """The newest checkpoint of a folder; None if it has none."""
    return next(reversed(checkpoints(folder)), None)


def load(path: Path) -> Saved:
    """Read a checkpoint, its hashes compared.

    Raises:
        InvalidData: It is damaged; the message names the file.
    """
    state = _state(path)
    for name, known in state.files.items():
        if not (path / name).is_file() or _hash(path / name) != known:
            raise InvalidData(
                f"{path / name} is missing or damaged",
                hint=f"remove {path}: training goes on from the one before",
            )
    # Tensors and plain values only: whatever else such a file holds is refused.
    optimizer = torch.load(path / OPTIMIZER, weights_only=True, map_location="cpu")
    average = load_file(path / AVERAGE) if AVERAGE in state.files else {}
    return Saved(
        state=state, weights=load_file(path / WEIGHTS), optimizer=optimizer, average=average
    )


@contextmanager
def writing(what: Path) -> Iterator[None]:
    """Whatever the disk or the system fails in is `fault`, also where a library calls it its own.

    Args:
        what: What is written.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        said = _said(error)
        if said is None:
            raise
        raise fault(f"{what} can't be written", said) from None


def _said(error: BaseException | None) -> OSError | None:
    """What the system said, if an error is due to it.

    Torch raises while it handles that; safetensors writes its number down.
    """
    while error is not None:
        if isinstance(error, OSError) and error.errno is not None:
            return error
        if isinstance(error, SafetensorError) and (found := _NUMBER.search(str(error))):
            return OSError(int(found[1]), os.strerror(int(found[1])))
        error = error.__context__
    return None


def _state(path: Path) -> State:
    try:
        return msgspec.json.decode((path / STATE).read_bytes(), type=State)
    except (OSError, msgspec.MsgspecError) as error:
        raise_fault(path / STATE, error)
        raise InvalidData(
            f"{path / STATE} can't be read: {error}",
            hint=f"remove {path}: training goes on from the one before",
        ) from None


def _tensors(file: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    save_file({name: each.detach().cpu().contiguous() for name, each in tensors.items()}, file)


def _hash(file: Path) -> str:
    with file.open("rb") as opened:
        return file_digest(opened, "sha256").hexdigest()


def _synced(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
