"""A golden log on disk: written once, read for ever."""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.actions import BlobRef, Json
from protocol.codec import decode_value, digest
from protocol.dialects import prompt, speaker
from protocol.events import PolicyReplied
from protocol.state import RunState
from protocol.views import view
from replay.chain import Head, Messages, RunLog, Stored, assemble
from replay.damage import Decode
from replay.redecide import redecide

FOLDER: Final = Path(__file__).parent
LOGS: Final = FOLDER / "logs"
MUST_FAIL: Final = FOLDER / "must_fail"
OLD_FORM: Final = FOLDER / "old_form"


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """Why a log must not verify: a problem, as far as its words are a promise."""

    run: str
    kind: str
    what: str
    commit: int = 0
    event: int = 0
    expected: str = ""
    found: str = ""


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a golden log is, and what has to come of it."""

    story: str
    podium: str
    """The version that wrote it."""
    about: str
    runs: dict[str, dict[str, Any]]
    """The state of each run, as `plain` has it."""
    reasons: tuple[Reason, ...] = ()
    """Empty for a log that has to verify."""


class Golden:
    """One golden log.

    Args:
        folder: Where it lies.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = msgspec.json.decode((folder / "manifest.json").read_bytes(), type=Manifest)
        self.runs = tuple(self.manifest.runs)

    def messages(self, run: str) -> Messages:
        """The two subjects of a run."""
        return Messages(*(_read(self.folder / f"{run}.{name}.jsonl") for name in Messages._fields))

    def log(self, run: str) -> RunLog:
        """A run, with its origin if it is a fork."""
        log = assemble(run, *self.messages(run))
        if log.forked is not None:
            log.origin = self.log(log.forked.origin.run)
        return log

    def decoded(self, run: str, decode: Decode) -> RunLog:
        """A run whose bytes become commits in another way than today's."""
        messages = self.messages(run)
        log = assemble(run, [], messages.inbox)
        for stored in messages.commits:
            commit = decode(stored.data)
            log.commits.append(commit)
            log.seqs.append(stored.seq)
            hash_ = digest(stored.data)
            log.head = Head(commit.n, hash_, stored.seq, commit.epoch, commit.at)
        return log

    def blob(self, ref: BlobRef) -> Json:
        """The value in a blob."""
        return decode_value((self.folder / "blobs" / ref.sha256).read_bytes())

    def prompts(self) -> dict[str, bytes]:
        """The prompts that were shown, by hash."""
        lines = [each.data for each in _read(self.folder / "prompts.jsonl")]
        return {sha256(line).hexdigest(): line for line in lines}


def goldens(folder: Path) -> list[Golden]:
    """All that lie in a folder, at any depth."""
    return [Golden(found.parent) for found in sorted(folder.rglob("manifest.json"))]


def _read(path: Path) -> list[Stored]:
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [Stored(10 * number, line) for number, line in enumerate(lines, 1)]


def write(
    folder: Path,
    manifest: Manifest,
    runs: Mapping[str, Messages],
    blobs: Iterable[bytes],
    prompts: Iterable[bytes],
) -> None:
    """Write a golden log where none is. Raises `FileExistsError`."""
    folder.mkdir(parents=True)
    for run, messages in runs.items():
        for name in Messages._fields:
            _write(folder / f"{run}.{name}.jsonl", [s.data for s in getattr(messages, name)])
    _write(folder / "prompts.jsonl", sorted(set(prompts)))
    for data in blobs:
        (folder / "blobs").mkdir(exist_ok=True)
        (folder / "blobs" / sha256(data).hexdigest()).write_bytes(data)
    encoded = msgspec.json.format(msgspec.json.encode(manifest), indent=1)
    (folder / "manifest.json").write_bytes(encoded + b"\n")


def _write(path: Path, lines: list[bytes]) -> None:
    if lines:
        assert not any(b"\n" in line for line in lines)
        path.write_bytes(b"".join(line + b"\n" for line in lines))


def plain(state: RunState) -> dict[str, Any]:
    """A state as JSON has it. The pool stands there once."""
    fields = {name: getattr(state, name) for name in state.__struct_fields__ if name != "workers"}
    fields["strays"] = sorted(f"{call}/{attempt}" for call, attempt in state.strays)
    fields["signals"] = sorted(state.signals)
    fields["reserves"] = {f"{call}/{n}": spend for (call, n), spend in state.reserves.items()}
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(fields))
    return found


def prompts_of(log: RunLog, values: Mapping[str, Json]) -> list[bytes]:
    """What the policy, or the composer, was shown for each reply of a run's own log."""
    found: list[bytes] = []
    for decided in redecide(log):
        for step in decided.steps:
            asked = step.before.asked
            replied = any(isinstance(event, PolicyReplied) for event in step.events)
            if asked is None or not replied:
                continue
            shown = view(step.before, values, asked.limited_by)
            found.append(prompt(speaker(step.before.policy, asked.asker), shown))
    return found
