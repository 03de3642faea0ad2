"""The loop: which batch comes when, and where its metrics go."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from protocol import semconv
from protocol.errors import DiskFault, InvalidData, Usage
from tests.learners import example, learner, ragged
from trainer.learner.fit import MAX_REFUSED, fit
from trainer.learner.learner import Stepped
from trainer.learner.order import Fed, Shuffled
from trainer.learner.sinks import FileSink, OtelSink, lines


@given(count=st.integers(1, 12), size=st.integers(1, 9), seed=st.integers(0, 5))
@settings(max_examples=60, deadline=None)
def test_each_example_comes_once_an_epoch_in_an_order_of_its_seed(
    count: int, size: int, seed: int
) -> None:
    examples = [example([at]) for at in range(count)]
    source = Shuffled(examples, size, seed)
    steps = range(2 * count)
    drawn = [int(each.ids[0]) for step in steps for each in source(step).examples]
    for epoch in range(len(drawn) // count):
        assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))
    again = [
        int(each.ids[0])
        for step in reversed(steps)
        for each in reversed(Shuffled(examples, size, seed)(step).examples)
    ]
    assert again[::-1] == drawn


def test_batches_of_nothing_are_refused() -> None:
    with pytest.raises(Usage):
        Shuffled([], 3, 0)


def test_metrics_go_to_a_file_a_line_a_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "metrics.jsonl"

    def source(step: int) -> Fed:
        return Fed(examples=ragged([9]), values={"reward": step / 2, "workers": {"a": 1.0}})

    ticks = iter(range(100))
    fit(
        learner(),
        source,
        3,
        sinks=[FileSink(path, "rl")],
        clock=lambda: float(next(ticks)),
        progress=False,
    )
    found = lines(path)
    assert [each["step"] for each in found] == [1, 2, 3]
    assert [each["reward"] for each in found] == [0, 0.5, 1]
    assert {each["stage"] for each in found} == {"rl"}
    assert {each["tokens_per_s"] for each in found} == {9}
    assert found[0]["workers"] == {"a": 1.0}
    assert found[0]["nll"] > 0


def test_a_file_forgets_what_will_come_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    for stage, steps in (("sft", 3), ("rl", 4)):
        sink = FileSink(path, stage)
        sink.begin(0)
        for step in range(1, steps + 1):
            sink.put({"step": step})
    with path.open("ab") as file:
        file.write(b'{"step": 5, "los')  # its writer was killed here
    FileSink(path, "rl").begin(2)
    found = [(each["stage"], each["step"]) for each in lines(path)]
    assert found == [("sft", 1), ("sft", 2), ("sft", 3), ("rl", 1), ("rl", 2)]
    path.write_text("{}\n" + path.read_text())
    with pytest.raises(InvalidData, match=r"metrics\.jsonl:1 is no line of metrics"):
        lines(path)


def test_metrics_that_can_not_be_kept_are_no_bug(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    for name, what in (("folder", "read"), ("file/metrics.jsonl", "read")):
        with pytest.raises(DiskFault, match=f"{name} can't be {what}"):
            FileSink(tmp_path / name).begin(0)
    with pytest.raises(DiskFault, match=r"folder can't be written: .*\(EISDIR\)"):
        FileSink(tmp_path / "folder").put({"step": 1})


def test_metrics_go_to_opentelemetry() -> None:
    reader = InMemoryMetricReader()
    meter = MeterProvider([reader], shutdown_on_exit=False).get_meter(semconv.SCOPE)

    def source(_: int) -> Fed:
        return Fed(examples=ragged([9, 12], pg=True), values={"reward": 0.25})

    fit(learner(), source, 2, sinks=[OtelSink(meter, {"podium.policy": "tiny"})], progress=False)
    data: Any = reader.get_metrics_data()
    found = {
        metric.name: metric.data.data_points[0]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    assert found[semconv.TRAIN_TOKENS].value == 42
    assert found["podium.train.reward"].value == 0.25
    assert found["podium.train.step"].value == 2
    assert found["podium.train.entropy"].attributes == {"podium.policy": "tiny"}
    without = {"podium.train.nll", "podium.train.ref_kl"}
    assert found.keys() == semconv.TRAIN_GAUGES.keys() - without | {semconv.TRAIN_TOKENS}


def test_batches_that_are_refused_again_and_again_end_training() -> None:
    seen: list[Stepped] = []
    with pytest.raises(InvalidData, match="nothing in it is trained"):
        fit(learner(), lambda _: Fed(examples=[]), 1_000, watch=seen.append, progress=False)
    assert len(seen) == MAX_REFUSED
    assert {each.updates for each in seen} == {0}


def test_whoever_watches_may_end_it(tmp_path: Path) -> None:
    mine = learner()
    batch = Fed(examples=ragged([9]))
    fit(mine, lambda _: batch, 9, checkpoints=tmp_path, watch=lambda each: each.step == 4)
    assert mine.steps == 4
    again = learner()
    fit(again, lambda _: batch, 9, checkpoints=tmp_path)
    assert again.steps == 4, "and it stays ended, whoever asks again"
    fit(mine, lambda _: batch, 6)
    assert mine.steps == 6, "unless it is gone on with in this process"
    assert not mine.ended


def test_what_a_step_says_can_be_kept_as_json() -> None:
    stepped = learner().step(ragged([9]))
    assert msgspec.json.decode(msgspec.json.encode(stepped), type=Stepped) == stepped
