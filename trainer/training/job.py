"""A training's folder: what it is made by, where it is, and which versions it has published.

::

    FOLDER/
        training.json    the model's folder and version, the data, the spec; others are refused
        checkpoints/     from which it goes on
        metrics.jsonl    a line a step
        .lock            held by who trains there; it stays, see `held`

A version says in its note by which training and after how many steps it was published. So one that
was killed anywhere, also between publishing and its next checkpoint, finds its own, and publishes
nothing twice.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.actions import Json
from protocol.decisions import PolicySpec
from protocol.errors import Conflict, InvalidData, NotFound, Usage
from protocol.model_versions import BASE, VersionPromoted
from replay import model_folder
from replay.disk import only_one, raise_fault
from replay.model_folder import Version
from replay.model_versions import ModelLog, point, publish
from trainer.training.spec import Spec

NAME: Final = "training.json"
CHECKPOINTS: Final = "checkpoints"
METRICS: Final = "metrics.jsonl"
TRIES: Final = "tries.json"
LOCK: Final = ".lock"

ID_CHARS: Final = 12
"""Of a training's id, hexadecimal: 48 bits tell a site's trainings apart."""

ELSEWHERE: Final = frozenset({"folder", "temperature", "seed", "batching"})
"""Options of a policy that a training is not told by: what the model and the spec say already, and
how the model's server computes."""

TOLD: Final = ("loss", "nll", "reward", "accuracy", "valid", "turns", "cost_usd", "ess_frac")
"""Metrics of the last step that a version's note has."""


class Made(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a training is made by."""

    model: str
    """The folder of the model, absolute."""
    version: str
    """The version that it begins with."""
    weights: str
    """Their hash."""
    data: dict[str, Json]
    """What it learns from: a data set's digest, a file of tasks, the gym."""
    spec: Spec
    policy: PolicySpec | None = None
    """How the model is asked, where rollouts are live: runs are named after the training, so with
    another policy it has to be another."""

    @property
    def id(self) -> str:
        """A name that follows from it: the same training, begun again, has the same."""
        known = sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()
        return f"{self.spec.kind}-{known[:ID_CHARS]}"


class _Tries(msgspec.Struct, frozen=True, kw_only=True):
    """The steps whose runs said nothing of the policy, and how often. It outlives ``--fresh``."""

    training: str
    steps: dict[int, int]


class Job:
    """A training, as far as its folder knows it.

    Args:
        folder: Its own.
        made: What it is made by.
    """

    def __init__(self, folder: Path, made: Made) -> None:
        self.folder, self.made = folder, made
        self.model = Path(made.model)

    @classmethod
    def begin(
        cls,
        folder: Path,
        model: Path,
        version: str,
        data: Mapping[str, Json],
        spec: Spec,
        *,
        policy: PolicySpec | None = None,
        fresh: bool = False,
    ) -> "Job":
        """The training of a folder, begun or to be gone on with.

        Args:
            folder: Its own; made if it is missing.
            model: The model's.
            version: The one to begin with; "" for the current one, or the one that it began with.
            data: What it learns from, so that it can be told from other data.
            spec: What it is asked to be.
            policy: How the model is asked, of a live one; see `live.policy_of`.
            fresh: Whether what is in the folder is removed.

        Raises:
            Conflict: The folder holds a training that is made by something else.
            NotFound: There is no such model or version.
            InvalidData: The version is damaged.
        """
        before = read(folder) if _begun(folder) and not fresh else None
        model = model.absolute()
        if before is not None:
            name = version or before.version
        else:
            name = version or ModelLog(model).read().current
        found = model_folder.find(model, name)
        made = Made(
            model=str(model),
            version=name,
            weights=model_folder.check(found),
            data=dict(data),
            spec=spec,
            policy=_telling(policy),
        )
        if before is not None and before != made:
            raise Conflict(
                f"{folder} holds another training: {', '.join(different(before, made))}",
                hint="name another folder (--out), or begin anew: --fresh",
            )
        if fresh:
            remove(folder)
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f".{NAME}.draft"
        draft.write_bytes(msgspec.json.format(msgspec.json.encode(made), indent=1) + b"\n")
        draft.replace(folder / NAME)
        return cls(folder, made)

    @property
    def start(self) -> Path:
        """The folder of the version that it begins with."""
        return model_folder.find(self.model, self.made.version).path

    @property
    def checkpoints(self) -> Path:
        """Where they are."""
        return self.folder / CHECKPOINTS

    @property
    def metrics(self) -> Path:
        """Where they are."""
        return self.folder / METRICS

    def published(self, step: int) -> Version | None:
        """The last version that this training has published after so many steps; None if none."""
        for name in reversed(model_folder.names(self.model)):
            if name == self.made.version:
                break
            try:
                found = model_folder.find(self.model, name)
            except (NotFound, InvalidData):
                continue
            note = found.manifest.note if found.manifest is not None else {}
            if (note.get("training"), note.get("steps")) == (self.made.id, step):
                return found
        return None

    def tried(self, step: int) -> int:
        """How often the runs of a step have said nothing of the policy.

        Raises:
            InvalidData: What the folder says of it is damaged.
            Denied, DiskFault: That can't be read.
        """
        return self._tries().get(step, 0)

    def try_again(self, step: int) -> None:
        """Have the step ask for other runs the next time: those that were asked are done for."""
        tries = self._tries()
        tries[step] = tries.get(step, 0) + 1
        draft = self.folder / f".{TRIES}.draft"
        draft.write_bytes(msgspec.json.encode(_Tries(training=self.made.id, steps=tries)))
        draft.replace(self.folder / TRIES)

    def _tries(self) -> dict[int, int]:
        path = self.folder / TRIES
        try:
            found = msgspec.json.decode(path.read_bytes(), type=_Tries)
        except FileNotFoundError:
            return {}
        except (OSError, msgspec.MsgspecError) as error:
            raise_fault(path, error)
            raise InvalidData(f"{path} can't be read: {error}", hint="remove it") from None
        return found.steps if found.training == self.made.id else {}

    def answer_by(self, version: str, *, by: str = "", why: str = "") -> None:
        """Have a version answer from here on, unless it does."""
        if ModelLog(self.model).read().current != version:
            point(self.model, version, by=by, why=why)

    def publish(
        self,
        write: Callable[[Path], object],
        step: int,
        *,
        current: bool,
        again: bool = True,
        line: Mapping[str, Json] | None = None,
        by: str = "",
        why: str = "",
    ) -> Version:
        """Publish the weights after so many steps, unless that was done.

        Args:
            write: See `replay.model_versions.publish`.
            step: How many are done.
            current: Whether the version answers from here on.
            again: Whether also if it has answered before, and somebody chose another since.
            line: Metrics of the last step.
            by: Who publishes it.
            why: Why, in their words.

        Returns:
            The version. One that is there is it, if its weights are the same to the bit.
        """
        there = self.published(step)
        if there is not None and self._same(there, write):
            if current and (again or not self._answered(there.name)):
                self.answer_by(there.name, by=by, why=why)
            return there
        note: dict[str, Json] = {
            "training": self.made.id,
            "kind": self.made.spec.kind,
            "steps": step,
            "from": self.made.version,
            "data": self.made.data,
            "metrics": {name: line[name] for name in TOLD if line and name in line},
        }
        why = why or f"{self.made.spec.kind}, {step} steps"
        return publish(self.model, write, note=note, current=current, by=by, why=why)

    def _answered(self, version: str) -> bool:
        """Whether a version was ever current."""
        events = (event for said in ModelLog(self.model).history() for event in said.events)
        return any(isinstance(each, VersionPromoted) and each.version == version for each in events)

    def _same(self, version: Version, write: Callable[[Path], object]) -> bool:
        """Whether a version has these weights."""
        with tempfile.TemporaryDirectory(dir=self.folder, prefix=".draft-") as draft:
            write(Path(draft))
            written = Version(BASE, Path(draft), None)
            return model_folder.check(written) == model_folder.weights_of(version)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Be the only one who trains in a folder, which is made if it is missing.

    Raises:
        Usage: There is a file in its place.
        Conflict: Somebody else trains there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise Usage(
            f"{folder} can't be a training's folder: there is a file",
            hint="name another folder: --out",
        ) from None
    refusal = Conflict(
        f"somebody else trains in {folder}",
        hint="wait until that is done, or name another folder: --out",
    )
    with only_one(folder / LOCK, refusal):
        yield


def read(folder: Path) -> Made | None:
    """What the training in a folder is made by; None if there is none.

    Raises:
        InvalidData: It is damaged.
        Denied, DiskFault: It can't be read.
    """
    try:
        return msgspec.json.decode((folder / NAME).read_bytes(), type=Made)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise_fault(folder / NAME, error)
        raise InvalidData(
            f"{folder / NAME} can't be read: {error}", hint="begin anew: --fresh"
        ) from None


def _telling(policy: PolicySpec | None) -> PolicySpec | None:
    """Of a policy, what can't be told from the rest, and decides what it replies."""
    if policy is None:
        return None
    options = {name: said for name, said in policy.options.items() if name not in ELSEWHERE}
    return msgspec.structs.replace(policy, options=options)


def _begun(folder: Path) -> bool:
    """Whether a step was made there; of one that never got so far nothing is lost."""
    return (folder / METRICS).exists() or (folder / CHECKPOINTS).exists()


def remove(folder: Path) -> None:
    """Remove a training; its versions stay."""
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)
    for name in (METRICS, NAME):
        (folder / name).unlink(missing_ok=True)


def different(before: Made, after: Made) -> list[str]:
    """In what two trainings differ, by path: ``spec.optimizer.rate is 0.1, and was 0.2``."""
    one, other = _flat(msgspec.to_builtins(before)), _flat(msgspec.to_builtins(after))
    paths = sorted(one.keys() | other.keys())
    return [
        f"{path} is {other.get(path)}, and was {one.get(path)}"
        for path in paths
        if one.get(path) != other.get(path)
    ]


def _flat(tree: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found
