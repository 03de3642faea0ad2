"""A model's folder, and the versions in it. Plain files: no torch is needed.

::

    FOLDER/                       a Transformers folder: config, tokenizer, chat template, weights
        versions/
            000001/               a whole folder of the same kind, never changed once it is there
                podium.json       its manifest: the hash of every file
            000002/
            log.jsonl             what was said of them, see `model_versions`
            current               the version that answers: what the log comes to, for a look

A version is written beside the others under a name that nobody reads, and renamed when all of it is
on the disk. So whoever reads sees a whole version or none.
"""

import contextlib
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from hashlib import file_digest, sha256
from pathlib import Path
from typing import Final

import msgspec

from protocol.actions import Count, Json
from protocol.codec import HASH_CHARS
from protocol.errors import InvalidData, NotFound
from protocol.model_versions import BASE
from replay.disk import raise_fault, reading

FOLDER: Final = "versions"
CURRENT: Final = "current"
MANIFEST: Final = "podium.json"
DRAFT: Final = ".draft-"

WEIGHTS: Final = ".safetensors"
"""What files of weights end with. Others are not read: they can run code when they are loaded."""

MAX_FILES: Final = 10_000
"""Files of one version: shards of weights, and a dozen others."""

MAX_MANIFEST_BYTES: Final = 2**22
"""Bytes of a manifest: some hundred for each file."""

MAX_POINTER_CHARS: Final = 256
"""Characters of ``current`` that are read: a name has six."""

MAX_VERSIONS: Final = 999_999
"""What a version's name can count."""

_NAME: Final = re.compile(r"[0-9]{6}")


class Manifest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a version is."""

    version: str
    files: dict[str, str]
    """SHA-256 (hex) of each file, by name."""
    note: dict[str, Json] = {}
    """What whoever published it says of it: ``data``, ``steps``, ``scores``, or whatever else."""
    by: str = ""
    at: Count = 0
    """When it was published, milliseconds since the epoch."""
    why: str = ""


class Version(msgspec.Struct, frozen=True):
    """A version that can be loaded."""

    name: str
    path: Path
    manifest: Manifest | None
    """None for `BASE`, which nobody has published."""


def number(count: int) -> str:
    """The name of the version of that number."""
    return f"{count:06}"


def names(folder: Path) -> list[str]:
    """The published versions, oldest first. Raises `Denied` and `DiskFault`."""
    try:
        with reading(folder / FOLDER):
            found = [each.name for each in (folder / FOLDER).iterdir()]
    except FileNotFoundError:
        return []
    return sorted(name for name in found if _NAME.fullmatch(name))


def pointed_at(folder: Path) -> str:
    """What ``current`` says: the name of a version; empty if there is no such file.

    Raises:
        InvalidData: It says no name.
        Denied, DiskFault: It can't be read.
    """
    said = pointer(folder)
    name = said.partition("\n")[0].strip()
    if said and name != BASE and not _NAME.fullmatch(name):
        raise InvalidData(
            f"{folder / FOLDER / CURRENT} names {name[:40]!r}, which is no version",
            hint=f"write the name of one of {', '.join(names(folder)[-3:]) or BASE} into it",
        )
    return name


def pointer(folder: Path) -> str:
    """The text of ``current``; empty if there is no such file. Raises `Denied`, `DiskFault`."""
    path = folder / FOLDER / CURRENT
    try:
        with reading(path), path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_POINTER_CHARS)
    except FileNotFoundError:
        return ""


def point_at(folder: Path, text: str) -> None:
    """Replace ``current``, whole."""
    versions = folder / FOLDER
    fresh = versions / f".{CURRENT}-{secrets.token_hex(8)}"
    try:
        fresh.write_text(text, encoding="utf-8")
        synced(fresh)
        fresh.replace(versions / CURRENT)
    finally:
        fresh.unlink(missing_ok=True)
    synced(versions)


def find(folder: Path, name: str) -> Version:
    """A version, by its name; not yet looked into.

    Raises:
        NotFound: There is no such version, or no such folder.
        InvalidData: Its manifest is damaged.
        Denied, DiskFault: That can't be read.
    """
    path = folder if name == BASE else folder / FOLDER / name
    if not (path / "config.json").is_file():
        raise NotFound(
            f"{path} is no folder of a model: it has no config.json",
            hint="name the folder that save_pretrained has written model and tokenizer to",
        )
    if name == BASE:
        return Version(name, path, None)
    try:
        data = (path / MANIFEST).read_bytes()
        if len(data) > MAX_MANIFEST_BYTES:
            raise InvalidData(f"{path / MANIFEST} has {len(data)} bytes", hint="publish it again")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (OSError, msgspec.MsgspecError) as error:
        raise_fault(path / MANIFEST, error)
        raise InvalidData(
            f"version {name} in {folder} has no manifest that can be read: {error}",
            hint="publish it again, under the next number",
        ) from None
    return Version(name, path, manifest)


def check(version: Version) -> str:
    """Read all of a version and compare its hashes; the hash of its weights.

    Raises:
        InvalidData: A file is missing, damaged, or not its own; or there are no weights.
        Denied, DiskFault: One can't be read.
    """
    found = _hashes(version.path)
    if version.manifest is not None:
        wanted = version.manifest.files
        for name in sorted(wanted.keys() | found.keys()):
            if found.get(name) != wanted.get(name):
                what = "is not in its manifest" if name not in wanted else "is damaged"
                raise InvalidData(
                    f"version {version.name}: {version.path / name} "
                    f"{what if name in found else 'is missing'}",
                    hint="publish it again, under the next number",
                )
    return _weights(version.path, found)


def weights_of(version: Version) -> str:
    """The hash of a published version's weights, by its manifest; empty for `BASE`."""
    return "" if version.manifest is None else _weights(version.path, version.manifest.files)


def hash_of(value: Json) -> str:
    """The hash of a JSON value, as it is recorded."""
    return sha256(msgspec.json.encode(value, order="deterministic")).hexdigest()[:HASH_CHARS]


def place(
    folder: Path, write: Callable[[Path], object], manifest: Manifest, after: str = "0"
) -> Version:
    """Place a version under the next number: whole, or not at all.

    Args:
        folder: The model's.
        write: Writes a whole Transformers folder into an empty one.
        manifest: What is known of it; its number and its files are filled in.
        after: The last version that is known to have been there, perhaps removed: what was said of
            it is not said of another.

    Raises:
        InvalidData: What was written has no weights, or no config.
        OSError: The disk is full, or the folder can't be written.
    """
    versions = folder / FOLDER
    versions.mkdir(exist_ok=True)
    with _draft(versions) as draft:
        write(draft)
        (draft / MANIFEST).unlink(missing_ok=True)
        return _placed(folder, draft, manifest, after)


@contextlib.contextmanager
def _draft(versions: Path) -> Iterator[Path]:
    """An empty folder to write a version into. Those that the dead have left are removed.

    Who writes holds the kernel's lock of the folder, and takes it before the folder has a draft's
    name. Where a file system locks no folders, none is removed.
    """
    for left in versions.glob(f"{DRAFT}*"):
        with contextlib.suppress(OSError), _opened(left) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(left, ignore_errors=True)
    token = secrets.token_hex(8)
    new, draft = versions / f".new-{token}", versions / f"{DRAFT}{token}"
    new.mkdir()
    try:
        with _opened(new) as descriptor:
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(draft)
            yield draft
    finally:
        for path in (new, draft):
            shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _placed(folder: Path, draft: Path, manifest: Manifest, after: str) -> Version:
    """Rename a draft to the next number, which another publisher may take first."""
    files = _hashes(draft)
    _weights(draft, files)
    if "config.json" not in files:
        raise InvalidData("what was to be published has no config.json", hint="save the model, too")
    last = max(int(name) for name in (after, *names(folder)))
    for count in range(last + 1, MAX_VERSIONS + 1):
        name = number(count)
        manifest = msgspec.structs.replace(manifest, version=name, files=files)
        (draft / MANIFEST).write_bytes(msgspec.json.encode(manifest))
        for file in (*draft.iterdir(), draft):
            synced(file)
        path = folder / FOLDER / name
        try:
            draft.rename(path)
        except OSError:
            if path.exists():  # another publisher's
                continue
            raise
        synced(path.parent)
        return Version(name, path, manifest)
    raise InvalidData(f"{folder} has {MAX_VERSIONS} versions", hint="begin another folder")


def _hashes(path: Path) -> dict[str, str]:
    """The hash of every file of a version. A base's versions are none of its own."""
    found: dict[str, str] = {}
    for file in sorted(path.iterdir()):
        if file.name == MANIFEST or file.name.startswith(".") or not file.is_file():
            continue
        with reading(file), file.open("rb") as opened:
            found[file.name] = file_digest(opened, "sha256").hexdigest()
        if len(found) > MAX_FILES:
            raise InvalidData(f"{path} has more than {MAX_FILES} files", hint="name another folder")
    return found


def _weights(path: Path, files: Mapping[str, str]) -> str:
    """The hash of the weights among files. Raises `InvalidData` if there are none."""
    weights = {name: known for name, known in files.items() if name.endswith(WEIGHTS)}
    if not weights:
        raise InvalidData(
            f"{path} has no weights: no file ends with {WEIGHTS}",
            hint="save it with save_pretrained, which writes safetensors",
        )
    return hash_of(weights)


def synced(path: Path) -> None:
    """Have a file, or what a folder lists, on the disk."""
    with _opened(path) as descriptor:
        os.fsync(descriptor)
