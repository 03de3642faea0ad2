"""The same log gives the same bytes: in one go, in pieces, and after a crash anywhere."""

import asyncio
import math
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.errors import Conflict, DiskFault, InvalidData, NotFound
from protocol.inbox import Label, Reward
from protocol.sampled import Arrays, Sampled
from replay.chain import RunLog
from tests.datasets import (
    CRASHED,
    HERMES,
    MENDED,
    ORACLE,
    REFUSED,
    RIGHT,
    SERIAL,
    STUCK,
    WRONG,
    Runs,
    name,
    run_of,
    spelled,
    told_of,
)
from trainer.datasets import formats, manifest
from trainer.datasets.build import Built, build
from trainer.datasets.preview import preview
from trainer.datasets.reader import samples
from trainer.datasets.spec import Format, Kind, Rl, Select, Sft, Spec
from trainer.training.rows import texts

STORIES = (RIGHT, WRONG, SERIAL, MENDED, REFUSED, CRASHED, STUCK)


def bytes_of(folder: Path) -> dict[str, bytes]:
    """All of a data set, by name."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def made(source: Runs, folder: Path, spec: Spec, **more: Any) -> Built:
    return asyncio.run(build(source, folder, spec, podium="test", **more))


def some(count: int, *, tasks: int = 3, first: int = 0) -> list[RunLog]:
    return [
        run_of(n, STORIES[n % len(STORIES)], task=f"task {n % tasks}", at=60 * n)
        for n in range(first, first + count)
    ]


def spec_of(kind: Kind = "sft", **more: Any) -> Spec:
    return Spec(kind=kind, **{"part_rows": 4, "settle_s": 30, "text": False, **more})


def test_a_data_set_says_what_it_is_made_of(tmp_path: Path) -> None:
    found = made(Runs(*some(14)), tmp_path, spec_of()).manifest
    assert found == manifest.read(tmp_path)
    assert found.complete
    assert found.log.runs == 14
    assert sum(found.verdicts.values()) == 14
    assert sum(found.versions.values()) == found.verdicts["kept"]
    assert found.tokenizers == {"bytes/plain": found.rows}
    assert found.redaction == {"none": 14}
    assert found.log.events == sum(len(list(log.events())) for log in some(14))
    assert [part.full for part in found.parts[:-1]] == [True] * (len(found.parts) - 1)
    assert manifest.check(tmp_path, found) == []


@pytest.mark.parametrize("kind", ["sft", "rl", "preference"])
def test_in_pieces_it_is_the_same_as_in_one_go(kind: Kind, tmp_path: Path) -> None:
    runs = some(21)
    spec = spec_of(kind, settle_s=100_000 if kind != "sft" else 30)
    made(Runs(*runs), tmp_path / "whole", spec)
    source = Runs()
    for begin in range(0, len(runs), 5):
        made(source.add(*runs[begin : begin + 5]), tmp_path / "pieces", spec)
    assert bytes_of(tmp_path / "pieces") == bytes_of(tmp_path / "whole")


stories = st.lists(
    st.tuples(st.sampled_from(STORIES), st.integers(0, 3), st.integers(0, 5)),
    min_size=1,
    max_size=9,
)


@settings(max_examples=15, deadline=None)
@given(stories, st.data(), st.sampled_from(["sft", "rl", "preference"]))
def test_however_it_is_cut_and_in_whatever_order_runs_come(
    drawn: list[tuple[Any, int, int]], data: st.DataObject, kind: Kind
) -> None:
    runs = [
        run_of(n, story, task=f"task {task}", at=20 * at)
        for n, (story, task, at) in enumerate(drawn)
    ]
    spec = spec_of(kind, part_rows=2, rl=Rl(stale="keep"))
    order = data.draw(st.permutations(runs))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        made(Runs(*runs), folder / "whole", spec)
        source = Runs()
        while order:
            size = data.draw(st.integers(1, len(order)))
            made(source.add(*order[:size]), folder / "pieces", spec)
            order = order[size:]
        assert bytes_of(folder / "pieces") == bytes_of(folder / "whole")


class Died(Exception):
    """Whatever ends a build."""


class Cut(Runs):
    """Dies at a moment."""

    def __init__(self, *logs: RunLog, at: int) -> None:
        super().__init__(*logs)
        self._at = at

    async def read(self, run: str) -> Any:
        if self.reads == self._at:
            raise Died
        return await super().read(run)


@pytest.mark.parametrize("at", [0, 5, 14, 16])
def test_cut_short_while_it_reads_it_goes_on(at: int, tmp_path: Path) -> None:
    runs = some(14)
    made(Runs(*runs), tmp_path / "whole", spec_of(part_rows=2))
    with pytest.raises(Died):
        made(Cut(*runs, at=at), tmp_path / "cut", spec_of(part_rows=2))
    made(Runs(*runs), tmp_path / "cut", spec_of(part_rows=2))
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


CHILD = """
import os, signal, sys
from pathlib import Path
from tests.unit.test_dataset_build import Runs, made, some, spec_of
left, real = int(sys.argv[2]), os.replace
def replace(*paths):
    global left
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    real(*paths)
os.replace = replace
made(Runs(*some(14)), Path(sys.argv[1]), spec_of(part_rows=2))
"""


@pytest.mark.parametrize("renames", [0, 1, 3, 4])
def test_killed_between_two_files_it_goes_on(renames: int, tmp_path: Path) -> None:
    made(Runs(*some(14)), tmp_path / "whole", spec_of(part_rows=2))
    command = [sys.executable, "-c", CHILD, str(tmp_path / "cut"), str(renames)]
    killed = subprocess.run(command, env={**os.environ, "PYTHONPATH": "."})
    assert killed.returncode == -signal.SIGKILL
    made(Runs(*some(14)), tmp_path / "cut", spec_of(part_rows=2))
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_only_what_is_new_is_read_and_written(tmp_path: Path) -> None:
    runs, spec = some(21, tasks=100), spec_of(sft=Sft(recovery=1))
    source = Runs(*runs[:14])
    before = made(source, tmp_path, spec).manifest
    source.reads = 0
    again = made(source, tmp_path, spec)
    assert (source.reads, again.written, again.manifest) == (0, 0, before)
    after = made(source.add(*runs[14:]), tmp_path, spec)
    assert after.read == 7
    full = [part for part in before.parts if part.full]
    assert list(after.manifest.parts[: len(full)]) == full
    assert after.manifest.rows > before.rows


def test_a_run_that_went_on_is_read_again(tmp_path: Path) -> None:
    source = Runs(run_of(1, ends=False))
    first = made(source, tmp_path, spec_of()).manifest
    assert (first.log.open, first.rows) == (1, 0)
    second = made(source.add(run_of(1)), tmp_path, spec_of()).manifest
    assert (second.log.open, second.rows) == (0, 1)


def test_late_rewards_and_labels_are_found_by_looking_again(tmp_path: Path) -> None:
    source = Runs(run_of(1, rewards={"accuracy": 0.0}), run_of(2, task="other", at=60))
    assert made(source, tmp_path, spec_of()).manifest.verdicts == {"kept": 1, "wrong": 1}
    late: list[Reward | Label] = [
        Reward(run=name(1), channel="accuracy", value=1.0, by="ada"),
        Label(run=name(1), key="seen", value=True, by="ada"),
    ]
    told_of(source.logs[name(1)], late)
    assert made(source, tmp_path, spec_of()).written == 0
    found = made(source, tmp_path, spec_of(), recheck=True)
    assert found.manifest.verdicts == {"kept": 2}
    made(source, tmp_path.parent / f"{tmp_path.name}-whole", spec_of())
    assert bytes_of(tmp_path) == bytes_of(tmp_path.parent / f"{tmp_path.name}-whole")


def test_no_row_has_a_reward_and_parts_of_two_days(tmp_path: Path) -> None:
    spec = spec_of(reward="paramanager", sft=Sft(right=0.5))
    source = Runs(run_of(1))
    made(source, tmp_path, spec)
    before = manifest.must_read(tmp_path)
    told_of(source.logs[name(1)], [Reward(run=name(1), channel="accuracy", value=0.5, by="ada")])
    source.add(run_of(2, task="other", at=60))
    with pytest.raises(Conflict, match=f"{name(1)} is worth something else"):
        made(source, tmp_path, spec)
    assert manifest.must_read(tmp_path).parts == before.parts
    made(source, tmp_path, spec, recheck=True)
    rewards = [each.reward or 0.0 for each in samples(tmp_path)]
    assert rewards == [pytest.approx(math.fsum(each.parts.values())) for each in samples(tmp_path)]
    assert rewards[0] < rewards[1]


def test_a_folder_holds_one_data_set(tmp_path: Path) -> None:
    source = Runs(*some(3))
    made(source, tmp_path, spec_of())
    with pytest.raises(Conflict, match="differs in select"):
        made(source, tmp_path, spec_of(select=Select(labels=("good",))))
    found = made(source, tmp_path, spec_of("rl"), fresh=True)
    assert found.manifest.spec.kind == "rl"
    assert {path.name for path in (tmp_path / "data").iterdir()} == {
        part.data.name.rpartition("/")[2] for part in found.manifest.parts
    }


def test_a_folder_of_another_format_is_built_anew(tmp_path: Path) -> None:
    source = Runs(*some(3))
    before = made(source, tmp_path, spec_of()).manifest
    (tmp_path / manifest.NAME).write_bytes(manifest.encode(replace(before, format=1)))
    with pytest.raises(InvalidData, match="is of format 1, and this version knows 2") as caught:
        made(source, tmp_path, spec_of())
    assert "--fresh" in caught.value.hint
    assert made(source, tmp_path, spec_of(), fresh=True).manifest == before


def test_a_part_that_was_lost_is_made_again(tmp_path: Path) -> None:
    source = Runs(*some(14))
    made(source, tmp_path, spec_of())
    before = bytes_of(tmp_path)
    (tmp_path / manifest.must_read(tmp_path).parts[0].data.name).unlink()
    made(source, tmp_path, spec_of())
    assert bytes_of(tmp_path) == before


def test_damage_is_named(tmp_path: Path) -> None:
    found = made(Runs(*some(3)), tmp_path, spec_of()).manifest
    path = tmp_path / found.parts[0].data.name
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    (wrong,) = manifest.check(tmp_path, found)
    assert found.parts[0].data.name in wrong
    (tmp_path / found.parts[0].ledger.name).write_bytes(b"?")
    with pytest.raises(InvalidData, match="is damaged"):
        made(Runs(*some(3)), tmp_path, spec_of())


def test_a_fault_of_the_disk_is_told_as_that_and_not_as_damage(tmp_path: Path) -> None:
    found = made(Runs(*some(3)), tmp_path, spec_of(text=True)).manifest
    data, ledger = (tmp_path / file.name for file in found.files)
    place = tmp_path / manifest.NAME

    def made_again() -> Built:
        return made(Runs(*some(4)), tmp_path, spec_of(text=True))

    reads: list[tuple[Path, Callable[[], Any]]] = [
        (data, lambda: manifest.check(tmp_path, found)),
        (data, lambda: list(samples(tmp_path))),
        (data, lambda: preview([data])),
        (data, lambda: list(texts(tmp_path))),
        (ledger, made_again),
        (place, lambda: manifest.read(tmp_path)),
        (place, made_again),
    ]
    for path, read in reads:
        whole = path.read_bytes()
        path.unlink()
        path.symlink_to(path)
        with pytest.raises(DiskFault) as caught:
            read()
        assert str(path) in caught.value.message
        assert "Too many levels of symbolic links (ELOOP)" in caught.value.message
        assert "try again" in caught.value.hint
        assert "--fresh" not in caught.value.hint
        path.unlink()
        path.write_bytes(whole)
    place.unlink()
    place.symlink_to("/proc/self/mem")  # which nobody can read at its beginning
    with pytest.raises(DiskFault, match=rf"{place} can't be read: Input/output error \(EIO\)"):
        manifest.read(tmp_path)
    place.unlink()
    place.write_bytes(b"?")
    with pytest.raises(InvalidData, match="is no manifest"):
        manifest.read(tmp_path)


SELECTIONS = [
    ({"since": "2023-11-14T22:14:20+00:00"}, [1, 2]),
    ({"until": "2023-11-14T22:14:20"}, [0]),
    ({"labels": ("split=train",)}, [2]),
    ({"labels": ("split", "seen=true")}, [2]),
    ({"versions": ("000002",)}, [1]),
    ({"versions": ("tiny/000002",)}, [1]),
    ({"versions": (spelled(HERMES, "000002"),)}, [1]),
    ({"versions": ("000001", "000002")}, [0, 1, 2]),
    ({"versions": ("other/000002", "tiny", "2")}, []),
    ({"policies": ("local:",)}, [0, 1, 2]),
    ({"policies": ("openai:",)}, []),
    ({"pools": ("adder",)}, [0, 1, 2]),
    ({"pools": ("nobody",)}, []),
    ({"outcomes": ("failed",)}, []),
    ({"runs": (name(0),)}, [0]),
]


@pytest.mark.parametrize(("select", "kept"), SELECTIONS)
def test_a_selection_leaves_out_the_rest(
    select: dict[str, Any], kept: list[int], tmp_path: Path
) -> None:
    source = Runs(
        run_of(0, task="a"),
        run_of(1, task="b", at=60, version="000002"),
        run_of(2, task="c", at=120, labels={"split": "train", "seen": True}),
    )
    found = made(source, tmp_path, spec_of(select=Select(**select))).manifest
    assert found.verdicts.get("kept", 0) == len(kept)
    assert found.log.runs == 3


def pair(first: int, version: str = "000001", **more: Any) -> list[RunLog]:
    """A right rollout and a wrong one of one task."""
    at = 1_000 * first
    return [
        run_of(first, RIGHT, version=version, at=at, **more),
        run_of(first + 1, WRONG, version=version, at=at + 30, **more),
    ]


def test_weights_are_old_beside_newer_ones_of_their_own_model_only(tmp_path: Path) -> None:
    namesake = replace(HERMES, options={"folder": "/elsewhere/tiny"})
    runs = [
        *pair(0),
        run_of(8, policy=ORACLE, version="rules-1", tokens=False, task="another", at=90_000),
        *pair(2, "000009", policy=namesake),
    ]
    found = made(Runs(*runs), tmp_path / "several", spec_of("rl")).manifest
    assert found.verdicts == {"kept": 4, "no tokens": 1}
    back = [*pair(0), *pair(2, "000002"), *pair(4)]
    found = made(Runs(*back), tmp_path / "rolled back", spec_of("rl")).manifest
    assert found.verdicts == {"kept": 4, "stale": 2}
    assert found.versions == {spelled(HERMES, "000001"): 4}


def known(said: Sampled) -> Arrays:
    """Its numbers."""
    assert said.arrays is not None
    return said.arrays


def silent(said: Sampled) -> Sampled:
    """Without log-probabilities."""
    return replace(said, arrays=replace(known(said), logprobs=b""))


REFUSALS: list[tuple[str, Callable[[Sampled], Sampled], Rl | None]] = [
    ("drawn at temperature 0", lambda said: replace(said, temperature=0.0), None),
    ("drawn with top_p or top_k", lambda said: replace(said, top_p=0.9), Rl(truncated="keep")),
    ("drawn with top_p or top_k", lambda said: replace(said, top_k=20), Rl(truncated="keep")),
    ("no log-probabilities", silent, Rl(missing="keep")),
    ("no prompt", lambda said: replace(said, arrays=replace(known(said), prompt=b"")), None),
]


@pytest.mark.parametrize(("why", "drawn", "allowed"), REFUSALS)
def test_no_group_holds_what_a_learner_refuses(
    why: str, drawn: Callable[[Sampled], Sampled], allowed: Rl | None, tmp_path: Path
) -> None:
    runs = [*pair(0), run_of(3, WRONG, at=60, drawn=drawn)]
    found = made(Runs(*runs), tmp_path / "rl", spec_of("rl")).manifest
    assert found.verdicts == {"kept": 2, why: 1}
    if allowed is not None:
        found = made(Runs(*runs), tmp_path / "all", spec_of("rl", rl=allowed)).manifest
        assert found.verdicts == {"kept": 3}
    assert made(Runs(*runs), tmp_path / "sft", spec_of("sft")).manifest.verdicts["kept"] == 1


def test_prime_rl_is_told_no_log_probability_that_nobody_knows(tmp_path: Path) -> None:
    runs = [*pair(0), run_of(3, WRONG, at=60, drawn=silent)]
    spec = spec_of("rl", format="prime-rl", rl=Rl(missing="keep"))
    found = made(Runs(*runs), tmp_path / "rl", spec).manifest
    assert (found.rows, found.notes) == (2, {"prime-rl has no unknown log-probabilities": 1})
    found = made(Runs(run_of(3, drawn=silent)), tmp_path, spec_of(format="prime-rl")).manifest
    assert (found.rows, found.notes) == (1, {}), "which imitation doesn't look at"


@pytest.mark.parametrize("format_", formats.MODULES)
def test_every_format_is_the_same_in_pieces(format_: Format, tmp_path: Path) -> None:
    runs = some(9)
    spec = spec_of(format=format_, text=True)
    made(Runs(*runs), tmp_path / "whole", spec)
    source = Runs()
    for run in runs:
        made(source.add(run), tmp_path / "pieces", spec)
    assert bytes_of(tmp_path / "pieces") == bytes_of(tmp_path / "whole")


def test_what_would_be_kept_can_be_asked_without_writing(tmp_path: Path) -> None:
    source = Runs(*some(14))
    would = made(source, tmp_path / "dry", spec_of(), dry_run=True).manifest
    did = made(source, tmp_path / "did", spec_of()).manifest
    assert (would.verdicts, would.log, would.parts) == (did.verdicts, did.log, ())
    assert not (tmp_path / "dry").exists()
    assert made(source, tmp_path / "did", spec_of(), dry_run=True).read == 0


def test_two_builders_of_a_folder_are_refused(tmp_path: Path) -> None:
    class Nested(Runs):
        async def runs(self) -> list[str]:
            with pytest.raises(Conflict, match="somebody else builds"):
                await build(Runs(), tmp_path, spec_of())
            return []

    made(Nested(), tmp_path, spec_of())


def test_what_is_replaced_is_whole_until_the_new_one_is(tmp_path: Path) -> None:
    runs = some(14)
    before = made(Runs(*runs), tmp_path, spec_of()).manifest
    with pytest.raises(Died):
        made(Cut(*runs, at=14), tmp_path, spec_of("rl", settle_s=9_999), fresh=True)
    assert manifest.read(tmp_path) == before
    assert manifest.check(tmp_path, before) == []


def test_a_run_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    class Broken(Runs):
        async def read(self, run: str) -> Any:
            if run == name(1):
                raise InvalidData("a blob is gone")
            return await super().read(run)

    found = made(
        Broken(*some(3), run_of(9, check={"kind": "odd"}, rewards={})), tmp_path, spec_of()
    )
    assert found.unread[name(1)].message == "a blob is gone"
    assert "odd" in found.unread[name(9)].message
    assert (len(found.unread), found.manifest.log.runs) == (2, 2)


def test_a_run_that_is_written_again_and_is_gone_is_left_out_when_told(tmp_path: Path) -> None:
    class Gone(Runs):
        async def read(self, run: str) -> Any:
            if run == name(0):
                raise NotFound("its file is gone", hint="look for it")
            return await super().read(run)

    spec = spec_of(sft=Sft(recovery=1))
    before = made(Runs(*some(3)), tmp_path, spec).manifest
    again = Gone(*some(6))
    with pytest.raises(NotFound, match=f"run {name(0)} .*its file is gone") as caught:
        made(again, tmp_path, spec)
    assert "--recheck" in caught.value.hint
    assert manifest.read(tmp_path) == before
    found = made(again, tmp_path, spec, recheck=True)
    assert (list(found.unread), found.manifest.log.runs) == ([name(0)], 5)
