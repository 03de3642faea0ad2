"""Rows as bytes of each format, and back; and the bytes that a fixed set of runs must give."""

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from protocol.errors import InvalidData, Usage
from tests.datasets import Runs, fixed
from tests.golden.datasets import record
from trainer.datasets.build import build
from trainer.datasets.manifest import Manifest
from trainer.datasets.preview import preview
from trainer.datasets.reader import examples, samples
from trainer.datasets.spec import Format, Kind, Rl, Sft, Spec


class Experts(msgspec.Struct, array_like=True):
    """As prime-rl's ``RoutedExperts``."""

    data: bytes
    shape: list[int]
    dtype: str


class TrainingSample(msgspec.Struct, array_like=True, omit_defaults=True):
    """As prime-rl's source has it (``src/prime_rl/transports/rollouts/types.py``, 2026-08).

    Its package can't be installed without CUDA.
    """

    token_ids: list[int]
    mask: list[bool]
    logprobs: list[float]
    temperatures: list[float]
    env_name: str
    ref_logprobs: list[float] | None = None
    mm_refs: list[list[tuple[str, int, int]]] | None = None
    routed_experts: Experts | None = None
    mm_token_type_ids: list[int] | None = None
    rl_weights: list[float] | None = None
    ce_weights: list[float] | None = None
    ref_kl_weights: list[float] | None = None
    advantages: list[float] | None = None


def made(folder: Path, kind: Kind, format_: Format, **more: Any) -> tuple[Manifest, Path]:
    spec = Spec(kind=kind, format=format_, **more)
    found = asyncio.run(build(Runs(*fixed()), folder, spec, podium="test")).manifest
    return found, folder / found.parts[0].data.name


def table(path: Path) -> Any:
    return pq.read_table(path)


def lines(path: Path) -> list[Any]:
    return [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]


@pytest.mark.parametrize("name", record.CASES)
def test_the_fixed_runs_give_the_recorded_bytes(name: str, tmp_path: Path) -> None:
    """What changes them changes every data set: record anew, and raise `manifest.FORMAT`."""
    found, path = record.made(name, tmp_path)
    recorded = msgspec.json.decode(record.GOLDEN.read_bytes())
    golden = recorded["sets"][name]
    assert (found.rows, record.content(path)) == (golden["rows"], golden["content"])
    if recorded["pyarrow"] == pa.__version__ or path.suffix != ".parquet":
        assert sha256(path.read_bytes()).hexdigest() == golden["sha256"]


def test_canonical_rows_hold_all_that_is_known(tmp_path: Path) -> None:
    found, path = made(tmp_path, "rl", "parquet")
    rows = table(path).to_pylist()
    assert len(rows) == found.rows > 1
    for row in rows:
        size = len(row["input_ids"])
        arrays = ("loss_mask", "old_logprobs", "ce_weights")
        assert {len(row[name]) for name in arrays} == {size}
        assert row["advantage"] is not None
        assert row["reward_components"] == [{"channel": "accuracy", "value": row["reward"]}]
        drawn = np.array(row["loss_mask"]) > 0
        assert (np.array(row["old_logprobs"])[drawn] < 0).all()
        assert (np.array(row["old_logprobs"])[~drawn] == 0).all()
        talk = msgspec.json.decode(row["messages"])
        assert len(talk) == len(row["message_weights"])
        assert row["temperature"] == 0.75
    by_run = {row["run_id"]: row["advantage"] for row in rows}
    assert len({row["row_id"] for row in rows}) == len(rows)
    assert abs(sum(by_run.values())) < 1e-5, "a group's mean is nobody's doing"


def test_parquet_is_small_row_groups_of_zstd(tmp_path: Path) -> None:
    _, path = made(tmp_path, "sft", "parquet")
    group = pq.ParquetFile(path).metadata.row_group(0)
    assert group.column(0).compression == "ZSTD"


def test_trl_has_labels_or_messages_without_invented_arguments(tmp_path: Path) -> None:
    _, path = made(tmp_path / "tokens", "sft", "trl", layout="tokens")
    for row in table(path).to_pylist():
        ids, labels = np.array(row["input_ids"]), np.array(row["labels"])
        trained = labels >= 0
        assert trained.any()
        assert (labels[~trained] == -100).all()
        assert (labels[trained] == ids[trained]).all()
    _, path = made(tmp_path / "prompt", "sft", "trl", layout="prompt", dialect="openai")
    rows = table(path).to_pylist()
    calls = [
        call["function"]["arguments"]
        for row in rows
        for message in map(msgspec.json.decode, [*row["prompt"], *row["completion"]])
        for call in message.get("tool_calls", ())
    ]
    assert {"city": "Paris"} in calls
    assert all(None not in each.values() for each in calls)
    assert b"Json" in table(path).schema.metadata[b"huggingface"]


def test_a_chat_row_trains_all_of_it(tmp_path: Path) -> None:
    found, path = made(tmp_path, "sft", "trl", layout="chat", sft=Sft(recovery=1))
    assert found.notes == {
        "a reply that is not trained can't be in a chat row: use another layout": 2
    }
    assert table(path).num_rows == found.rows > 0


def test_verl_has_native_structs(tmp_path: Path) -> None:
    found, path = made(tmp_path / "sft", "sft", "verl")
    kind = table(path).schema.field("messages").type
    assert kind.value_type == pa.struct([("role", pa.string()), ("content", pa.string())])
    assert found.rows > 0
    native, _ = made(tmp_path / "native", "sft", "verl", dialect="openai")
    assert native.rows == 0
    assert any("--dialect hermes" in note for note in native.notes)
    _, path = made(tmp_path / "rl", "rl", "verl")
    (row,) = table(path).to_pylist()[:1]
    assert [each["role"] for each in row["prompt"]] == ["system", "user"]
    assert msgspec.json.decode(row["reward_model"]["ground_truth"])["answer"] == "2100000"
    for each in row["rollouts"]:
        size = len(each["response_ids"])
        assert size == len(each["response_mask"]) == len(each["response_logprobs"])
        assert each["response_mask"][0] == 1, "a response begins where the policy wrote"


def test_prime_rl_reads_arrays_by_place(tmp_path: Path) -> None:
    found, path = made(tmp_path / "rl", "rl", "prime-rl")
    rows = msgspec.msgpack.decode(path.read_bytes(), type=list[TrainingSample])
    assert len(rows) == found.rows
    for row in rows:
        size = len(row.token_ids)
        assert row.advantages is not None
        arrays = (row.mask, row.logprobs, row.temperatures, row.advantages)
        assert {len(each) for each in arrays} == {size}
        assert row.ce_weights is None
    _, path = made(tmp_path / "sft", "sft", "prime-rl")
    (row,) = msgspec.msgpack.decode(path.read_bytes(), type=list[TrainingSample])[:1]
    assert row.ce_weights is not None
    assert row.rl_weights == [0.0] * len(row.token_ids)
    assert [weight > 0 for weight in row.ce_weights] == row.mask
    assert row.advantages is None


def test_openai_weighs_replies(tmp_path: Path) -> None:
    _, path = made(tmp_path / "sft", "sft", "openai", dialect="openai", sft=Sft(recovery=1))
    weights = [
        [each["weight"] for each in line["messages"] if each["role"] == "assistant"]
        for line in lines(path)
    ]
    assert [0, 1, 1] in weights
    assert all(line["messages"][-1]["role"] == "assistant" for line in lines(path))
    call = lines(path)[0]["messages"][2]["tool_calls"][0]["function"]
    assert isinstance(call["arguments"], str)
    _, path = made(tmp_path / "pairs", "preference", "openai")
    assert set(lines(path)[0]) == {"input", "preferred_output", "non_preferred_output"}
    _, path = made(tmp_path / "rl", "rl", "openai")
    assert lines(path)[0]["reference_answer"] == "2100000"
    assert lines(path)[0]["messages"][-1]["role"] == "user"


def test_a_trace_spells_what_was_sampled(tmp_path: Path) -> None:
    _, path = made(tmp_path / "rl", "rl", "verifiers")
    _, plain = made(tmp_path / "plain", "rl", "parquet")
    rows = {row["run_id"]: row for row in table(plain).to_pylist()}
    for episode in lines(path):
        (trace,) = episode["traces"]
        row = rows[trace["id"]]
        nodes = trace["nodes"]
        assert [node["parent"] for node in nodes] == [None, *range(len(nodes) - 1)]
        assert [i for node in nodes for i in node.get("token_ids", ())] == row["input_ids"]
        mask = [bit for node in nodes for bit in node.get("mask", ())]
        assert [int(bit) for bit in mask] == row["loss_mask"]
        drawn = [each for node in nodes for each in node.get("logprobs", ())]
        assert drawn == [each for each in row["old_logprobs"] if each]


def test_the_rewards_of_a_trace_add_up_to_what_it_is_worth(tmp_path: Path) -> None:
    _, path = made(tmp_path, "rl", "verifiers", reward="conductor", rl=Rl(mixed=False))
    traces = [episode["traces"][0] for episode in lines(path)]
    worth = [trace["info"]["podium"]["reward"] for trace in traces]
    assert {0.5, 1.0} <= set(worth)
    assert worth == [sum(each["score"] for each in trace["rewards"].values()) for trace in traces]


def shown(path: Path) -> dict[str, list[str]]:
    """What a preview says becomes of each reply, by run."""
    return {
        row.row: [span.loss for span in row.spans if span.role == "assistant"]
        for row in preview([path], limit=99)
    }


def test_a_preview_of_traces_goes_by_their_masks(tmp_path: Path) -> None:
    _, path = made(tmp_path, "sft", "verifiers", sft=Sft(recovery=1))
    for trace in (episode["traces"][0] for episode in lines(path)):
        replies = [node for node in trace["nodes"] if node["message"]["role"] == "assistant"]
        assert all(node["sampled"] for node in replies), "a model wrote the mistakes, too"
        masked = ["trained" if any(node.get("mask", ())) else "left out" for node in replies]
        assert shown(path)[trace["id"]] == masked
    assert ["left out", "trained", "trained"] in shown(path).values()


def test_a_trace_without_tokens_has_no_reply_that_is_not_trained(tmp_path: Path) -> None:
    plain: dict[str, Any] = {"dialect": "openai", "sft": Sft(recovery=1)}
    every, _ = made(tmp_path / "every", "sft", "openai", **plain)
    found, path = made(tmp_path / "some", "sft", "verifiers", **plain)
    assert found.notes == {
        "without tokens nothing says that a reply is not trained: build with --tokenizer FOLDER": 2
    }
    assert found.rows == every.rows - 2 > 0
    assert {loss for losses in shown(path).values() for loss in losses} == {"trained"}
    assert all("token_ids" not in n for each in lines(path) for n in each["traces"][0]["nodes"])


def test_each_view_of_a_trace_says_for_itself_what_is_trained(tmp_path: Path) -> None:
    """The full view has the tokens that were drawn, and the clean one has none."""
    found, path = made(tmp_path, "sft", "verifiers", sft=Sft(recovery=1, views="both"))
    assert not found.notes
    both = ["left out", "trained", "trained", "trained", "trained"]
    assert list(shown(path).values()).count(both) == 2
    (mended, *_) = [each["traces"][0] for each in lines(path) if len(shown(path)[each["id"]]) == 5]
    assert [node["parent"] for node in mended["nodes"]].count(None) == 2


def test_trajectories_say_what_they_are_worth(tmp_path: Path) -> None:
    _, path = made(tmp_path, "rl", "atif")
    about = [line["final_metrics"]["extra"]["podium"] for line in lines(path)]
    assert all(each["advantage"] is not None for each in about)
    assert {each["reward"] for each in about} == {0.0, 1.0}


def test_a_format_that_has_no_such_rows_names_those_that_do(tmp_path: Path) -> None:
    with pytest.raises(Usage, match="prime-rl has no rows of kind 'preference'") as caught:
        made(tmp_path, "preference", "prime-rl")
    assert caught.value.hint == "Use one of: parquet, trl, openai, atif."


def test_what_was_written_is_read_again_for_a_learner(tmp_path: Path) -> None:
    kinds: tuple[Kind, ...] = ("sft", "rl")
    for kind in kinds:
        found, _ = made(tmp_path / kind, kind, "parquet")
        rows = list(samples(tmp_path / kind))
        assert len(rows) == found.rows
        assert sum(len(row.ids) for row in rows) == found.tokens
        assert sum(int((row.mask > 0).sum()) for row in rows) == found.trained
        for row, example in zip(rows, examples(tmp_path / kind), strict=True):
            assert np.array_equal(example.ids, row.ids)
            assert (example.ce if kind == "sft" else example.pg).sum() == row.mask.sum()
            assert row.parts == {"accuracy": row.reward}
            assert example.temperature == 0.75
    made(tmp_path / "pairs", "preference", "parquet")
    with pytest.raises(Usage, match="no rows to learn from"):
        list(samples(tmp_path / "pairs"))
    made(tmp_path / "talk", "sft", "parquet", dialect="openai")
    with pytest.raises(InvalidData, match="has no tokens"):
        list(examples(tmp_path / "talk"))


def test_rows_that_no_model_could_read_are_left_out_and_counted(tmp_path: Path) -> None:
    every, _ = made(tmp_path / "every", "sft", "parquet")
    some, path = made(tmp_path / "some", "sft", "parquet", max_tokens=2_500)
    assert max(map(len, table(path)["input_ids"].to_pylist())) <= 2_500
    assert 0 < some.rows < every.rows
    assert some.notes == {"longer than max_tokens": every.rows - some.rows}
