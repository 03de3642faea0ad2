"""Curves of trainings, and what a step's rollouts were like."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from protocol.actions import Call, Pool, Spend
from protocol.decisions import Decision, PolicySpec, Rejection, Task, View
from protocol.errors import DiskFault, NotFound, Usage
from trainer.learner import report
from trainer.learner.observed import observed
from trainer.learner.report import draw
from trainer.learner.sinks import FileSink, lines
from trainer.records import Made, Rollout, Step


def written(path: Path, stages: dict[str, list[dict[str, Any]]]) -> Path:
    for stage, told in stages.items():
        sink = FileSink(path, stage)
        sink.begin(0)
        for step, line in enumerate(told, 1):
            sink.put({"step": step, **line})
    return path


@pytest.fixture
def files(tmp_path: Path) -> dict[str, list[Path]]:
    sft: list[dict[str, Any]] = [{"nll": 5.0 - step / 10, "grad_norm": 1.0} for step in range(30)]
    sft[7] |= {"grad_norm": None, "refused": "its gradient is no number"}
    rl = [
        {
            "reward": step / 40,
            "reward/accuracy": step / 40,
            "reward/format": 1.0,
            "turns": 4 - step / 40,
            "diversity": 2.0,
            "workers": {"fast": step / 40, "a & b": 1 - step / 40},
        }
        for step in range(40)
    ]
    both = written(tmp_path / "both.jsonl", {"sft": sft, "rl": rl})
    alone = written(tmp_path / "alone.jsonl", {"rl": [{**each, "reward": 0.1} for each in rl]})
    return {"SFT + RL": [both], "RL <alone>": [alone]}


def test_the_curves_of_the_papers_are_drawn(files: dict[str, list[Path]], tmp_path: Path) -> None:
    out = draw(files, tmp_path / "report.svg")
    text = "".join(ElementTree.fromstring(out.read_text()).itertext())
    for title in (
        "reward: accuracy",
        "reward: format",
        "turns of a rollout",
        "diversity",
        "workers that are called: SFT + RL",
        "negative log-likelihood",
        "before",
        "after",
        "a & b",
    ):
        assert title in text, title
    assert "entropy" not in text


def test_a_page_needs_nothing_else_and_says_where_each_began_and_ended(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    one, other = (tmp_path / name for name in ("one.html", "other.html"))
    page = draw(files, one, title="Ours & theirs").read_text()
    assert draw(files, other, title="Ours & theirs").read_text() == page
    assert "<h1>Ours &amp; theirs</h1>" in page
    assert "<td>RL &lt;alone&gt;</td><td>reward</td><td>0.1</td><td>0.1</td>" in page
    assert "<td>SFT + RL</td><td>reward</td><td>0.0375</td><td>0.9375</td>" in page
    assert "<script" not in page
    assert "src=" not in page


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no metrics in"):
        draw({"one": [tmp_path / "none.jsonl"]}, tmp_path / "report.html")
    with pytest.raises(Usage, match=r"neither \.html nor \.svg"):
        draw({}, tmp_path / "report.pdf")


def test_a_training_without_metrics_is_named_among_others(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    """It would be missing from every panel, and nobody would be told."""
    (tmp_path / "empty.jsonl").touch()
    stages = [*files["SFT + RL"], tmp_path / "tpyo.jsonl"]
    added = {**files, "two stages": stages, "none": [tmp_path / "empty.jsonl"]}
    with pytest.raises(NotFound, match=r"no metrics in \S+tpyo\.jsonl, \S+empty\.jsonl$"):
        draw(added, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(NotFound, match="no metrics in no file"):
        draw({}, tmp_path / "report.html")


def test_steps_that_count_on_from_the_stage_before_are_drawn_where_they_are(
    tmp_path: Path,
) -> None:
    """One learner counts on, another begins anew; both are drawn behind what was before."""
    path = tmp_path / "metrics.jsonl"
    for stage, steps in {"sft": range(1, 4), "rl": range(4, 6), "again": range(1, 3)}.items():
        sink = FileSink(path, stage)
        sink.begin(steps[0] - 1)
        for step in steps:
            sink.put({"step": step, "nll": 1.0})
    assert [line["at"] for line in report._series("both", [lines(path)]).steps] == [
        1,
        2,
        3,
        4,
        5,
        6,
        7,
    ]


def test_where_nothing_can_be_written_is_said_before_anything_is_drawn(
    files: dict[str, list[Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "lines", None)
    (tmp_path / "folder.html").mkdir()
    (tmp_path / "file").touch()
    for out in ("none/report.html", "file/report.html", "folder.html"):
        with pytest.raises(Usage, match=f"{out} can't be written") as caught:
            draw(files, tmp_path / out)
        assert "a folder that is there" in caught.value.hint
    assert not (tmp_path / "none").exists()


def test_a_file_that_nobody_may_write_is_no_bug(
    files: dict[str, list[Path]], tmp_path: Path
) -> None:
    loop = tmp_path / "report.html"
    loop.symlink_to(loop)
    with pytest.raises(DiskFault, match=r"report\.html can't be written: Too many levels"):
        draw(files, loop)


def test_what_rollouts_were_like() -> None:
    def step(turn: int, *workers: str, valid: bool = True) -> Step:
        calls = tuple(
            Made(call=Call(id=f"{turn}-{at}", worker=worker, arguments={}), status="OK")
            for at, worker in enumerate(workers)
        )
        return Step(
            turn=turn,
            view=View(run="run", task=Task(text="?"), pool=Pool(())),
            decision=Decision(),
            rejection=None if valid else Rejection("empty", "It decides nothing."),
            calls=calls,
        )

    def rollout(*steps: Step, cost: int) -> Rollout:
        return Rollout(
            run="run",
            group="group",
            task=Task(text="?"),
            pool=Pool(()),
            policy=PolicySpec(name="script"),
            steps=steps,
            critical_steps=len(steps),
            spend=Spend(cost=cost),
        )

    found = observed(
        [
            rollout(step(1, "a", "b"), step(2, "a"), cost=2_000_000),
            rollout(step(1, valid=False), step(2, "b"), step(3), cost=0),
        ],
        [1.0, 0.0],
        {"accuracy": [1.0, 0.5]},
    )
    assert found == {
        "rollouts": 2,
        "turns": 2.5,
        "calls": 2,
        "critical_steps": 2.5,
        "cost_usd": 1.0,
        "workers": {"a": 0.5, "b": 0.5},
        "valid": 0.8,
        "parallel": pytest.approx(4 / 3),
        "diversity": pytest.approx(2),
        "reward": 0.5,
        "reward/accuracy": 0.75,
    }
    assert not math.isnan(found["diversity"])
    assert observed([]) == {}
