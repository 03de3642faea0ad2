"""Steps: optimisers, schedules, adapters, averages, seeds."""

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from protocol.errors import InvalidData, NotFound, Usage
from tests import models
from tests.learners import TOKEN, example, learner, ragged, weights
from trainer.learner.learner import Learner
from trainer.learner.loading import placed, read
from trainer.learner.muon import COEFFICIENTS, ROUNDS, Muon, orthogonal, together
from trainer.learner.options import Lora, Options, Steps
from trainer.learner.stepping import factor

KINDS: tuple[Steps, ...] = (Steps(rate=0.01), Steps(kind="muon", rate=0.003, matrix_rate=0.02))


@pytest.mark.parametrize("steps", KINDS)
def test_what_is_imitated_is_learned(steps: Steps) -> None:
    mine = learner(steps=steps)
    batch = ragged((12, 9, 15, 7))
    said = [mine.step(batch).values["nll"] for _ in range(31)]
    assert said[0] > 5
    assert said[-1] < said[0] / 3


def test_muon_moves_matrices_and_adamw_the_rest() -> None:
    mine = learner(steps=KINDS[1])
    named = {id(each): name for name, each in mine.stepper.parameters.items()}
    groups = {
        kind: [named[id(each)] for group in optimizer.param_groups for each in group["params"]]
        for kind, optimizer in mine.stepper.optimizers.items()
    }
    assert all(name.endswith("proj.weight") for name in groups["muon"])
    assert len(groups["muon"]) == 14
    assert set(groups["adamw"]) | set(groups["muon"]) == set(named.values())
    assert "model.embed_tokens.weight" in groups["adamw"]


@given(rows=st.integers(2, 24), columns=st.integers(2, 24), seed=st.integers(0, 999))
@settings(max_examples=60, deadline=None)
def test_a_momentum_keeps_its_directions_and_loses_their_lengths(
    rows: int, columns: int, seed: int
) -> None:
    matrix = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    left, sizes, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    made = sizes / sizes.norm()
    for _ in range(ROUNDS):
        made = sum(each * made**power for each, power in zip(COEFFICIENTS, (1, 3, 5), strict=True))
    wanted = left @ made.diag() @ right
    assert torch.allclose(orthogonal(matrix).double(), wanted, atol=1e-3)
    assert made.max() < 1.5


@pytest.mark.parametrize("shape", [(6, 6), (5, 9), (9, 5)])
def test_muon_is_torchs_to_the_rounding_of_bfloat16(shape: tuple[int, int]) -> None:
    drawn = torch.Generator().manual_seed(0)
    first = torch.randn(shape, generator=drawn)
    mine, theirs = (torch.nn.Parameter(first.clone()) for _ in range(2))
    ours = Muon([mine], 0.1, momentum=0.9, weight_decay=0.1)
    other = torch.optim.Muon([theirs], 0.1, momentum=0.9, weight_decay=0.1)
    for _ in range(5):
        mine.grad = torch.randn(shape, generator=drawn)
        theirs.grad = mine.grad.clone()
        ours.step()
        other.step()  # type: ignore[no-untyped-call]
    moved = (theirs - first).detach().norm()
    assert float((mine - theirs).detach().norm() / moved) < 0.03
    buffers = [next(iter(each.state.values()))["momentum_buffer"] for each in (ours, other)]
    assert torch.allclose(*buffers)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_matrices_of_one_shape_are_orthogonalised_in_one_go(shape: tuple[int, int]) -> None:
    several = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    several[1] = 0
    each = torch.stack([orthogonal(matrix) for matrix in several])
    assert torch.allclose(orthogonal(several), each, atol=1e-5)


def test_matrices_are_moved_each_alone_on_a_cpu_and_by_shape_elsewhere() -> None:
    class There(torch.Tensor):
        is_cuda = True

    shapes = [(2, 3), (3, 2), (2, 3)]
    here = [torch.zeros(shape) for shape in shapes]
    assert [len(alike) for alike in together(here)] == [1, 1, 1]
    there = [matrix.as_subclass(There) for matrix in here]
    assert [[id(one) for one in alike] for alike in together(there)] == [
        [id(there[0]), id(there[2])],
        [id(there[1])],
    ]


def test_muon_leaves_what_has_no_gradient_or_one_of_zeros() -> None:
    still, flat = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    flat.grad = torch.zeros(3, 4)
    Muon([still, flat], 0.1).step()
    assert torch.equal(still, torch.ones(3, 4))
    assert torch.equal(flat, torch.ones(3, 4))


@given(
    schedule=st.sampled_from(("constant", "linear", "cosine")),
    warmup=st.integers(0, 20),
    more=st.integers(1, 50),
    floor=st.floats(0, 1),
)
@settings(max_examples=60, deadline=None)
def test_rates_grow_then_fall_to_their_floor(
    schedule: Any, warmup: int, more: int, floor: float
) -> None:
    steps = Steps(schedule=schedule, warmup=warmup, total=warmup + more, floor=floor)
    rates = [factor(steps, update) for update in range(warmup + more + 3)]
    assert all(0 < rate <= 1 for rate in rates[:warmup])
    assert rates[: warmup + 1] == sorted(rates[: warmup + 1])
    assert rates[warmup] == 1
    assert rates[warmup:] == sorted(rates[warmup:], reverse=True)
    assert rates[-1] == pytest.approx(1 if schedule == "constant" else floor)


def test_rates_are_what_the_schedule_says() -> None:
    steps = Steps(kind="muon", rate=0.1, matrix_rate=0.2, schedule="linear", warmup=1, total=3)
    mine = learner(steps=steps)
    found = [mine.step(ragged([9])).values for _ in range(4)]
    assert [each["rate_adamw"] for each in found] == pytest.approx([0.05, 0.1, 0.05, 0])
    assert [each["rate_muon"] for each in found] == pytest.approx([0.1, 0.2, 0.1, 0])


def test_a_schedule_without_an_end_is_refused() -> None:
    with pytest.raises(Usage, match="total"):
        Steps(schedule="cosine")


def test_a_gradient_is_cut_to_its_greatest_norm() -> None:
    """Plain descent would move by it; AdamW's first step shows it in its moments."""
    mine = learner(steps=Steps(clip=0.25))
    assert mine.step(ragged((9, 12))).values["grad_norm"] > 0.25
    moments = mine.stepper.optimizers["adamw"].state_dict()["state"].values()
    norm = torch.cat([each["exp_avg"].flatten() for each in moments]).norm() / (1 - 0.9)
    assert norm.item() == pytest.approx(0.25, rel=1e-3)


def test_the_average_follows_the_weights_and_is_written(tmp_path: Path) -> None:
    mine = learner(steps=Steps(ema=0.5, rate=0.01))
    name = "model.norm.weight"
    wanted = weights(mine)[name]
    for _ in range(3):
        mine.step(ragged([9]))
        wanted = wanted.lerp(weights(mine)[name], 0.5)
    assert torch.allclose(mine.stepper.average[name], wanted)
    mine.write(tmp_path, average=True)
    found = AutoModelForCausalLM.from_pretrained(tmp_path).get_parameter(name)
    assert torch.allclose(found, wanted)
    assert not torch.allclose(weights(mine)[name], wanted)
    with pytest.raises(Usage, match="no average"):
        learner().write(tmp_path, average=True)


def test_a_gradient_that_is_no_number_moves_nothing() -> None:
    mine = learner()
    with torch.no_grad():
        mine.model.model.norm.weight[0] = float("inf")
    before = weights(mine)
    stepped = mine.step(ragged([9]))
    assert stepped.refused == "its gradient is no number"
    assert all(torch.equal(each, before[name]) for name, each in weights(mine).items())


def test_steps_are_the_same_to_the_bit_whatever_went_before() -> None:
    """With dropout, so that random numbers count."""

    def trained(disturbed: bool) -> dict[str, torch.Tensor]:
        words = models.tokenizer()
        model = models.model(words)
        lora = Lora(rank=2, dropout=0.5)
        mine = Learner(model, words, Options(objective=TOKEN, lora=lora, seed=3))
        for _ in range(3):
            if disturbed:
                torch.rand(5)
            mine.step(ragged((9, 14)))
        return weights(mine)

    one, other = trained(disturbed=False), trained(disturbed=True)
    assert all(torch.equal(each, other[name]) for name, each in one.items())


def test_an_adapter_alone_is_trained_and_merges(tmp_path: Path) -> None:
    words = models.tokenizer()
    model = models.model(words)
    base = {name: each.clone() for name, each in model.named_parameters()}
    options = Options(objective=TOKEN, lora=Lora(rank=4), steps=Steps(rate=0.02))
    mine = Learner(model, words, options)
    assert mine.network.mode == "own"
    assert all("lora_" in name for name in mine.stepper.parameters)
    batch = ragged((12, 9, 15))
    for _ in range(10):
        mine.step(batch)
    kept = dict(mine.model.get_base_model().named_parameters())
    for name, each in base.items():
        inner = name if name in kept else name.replace(".weight", ".base_layer.weight")
        assert torch.equal(kept[inner], each), name
    mine.write(tmp_path / "merged")
    mine.write_adapter(tmp_path / "adapter")
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()
    merged = Learner.open(tmp_path / "merged", Options(objective=TOKEN), device="cpu")
    assert merged.evaluate(batch)["nll"] == pytest.approx(mine.evaluate(batch)["nll"], abs=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").chat_template == models.TEMPLATE
    mine.step(batch)  # what was written has changed nothing here
    with pytest.raises(Usage, match="no adapter"):
        learner().write_adapter(tmp_path)


def test_without_its_adapter_a_model_is_its_own_reference() -> None:
    words = models.tokenizer()
    options = Options(objective=TOKEN, lora=Lora(rank=4), steps=Steps(rate=0.02))
    mine = Learner(models.model(words), words, options)
    one = example(range(9), ref_kl=(4, 5, 6, 7))
    assert mine.evaluate([one])["ref_kl"] == pytest.approx(0, abs=1e-7)
    for _ in range(3):
        mine.step(ragged((9, 12)))
    plain = learner(reference=True)
    wanted = plain._reference
    assert wanted is not None
    gap = plain.known([one])[0][4:8] - mine.known([one])[0][4:8]
    divergence = float((torch.tensor(gap).exp() - torch.tensor(gap) - 1).mean())
    assert mine.evaluate([one])["ref_kl"] == pytest.approx(divergence, abs=1e-5)


def test_modules_that_are_not_there_take_no_adapter() -> None:
    words = models.tokenizer()
    with pytest.raises(InvalidData, match="nobody_proj"):
        Learner(
            models.model(words),
            words,
            Options(objective=TOKEN, lora=Lora(modules=("nobody_proj",))),
        )


def test_recomputed_activations_give_the_same_gradient() -> None:
    kept, again = learner(), learner(recompute=True)
    values = [each.step(ragged((9, 14, 11))).values for each in (kept, again)]
    assert values[0]["grad_norm"] == pytest.approx(values[1]["grad_norm"], rel=1e-5)
    assert again.model.model.gradient_checkpointing


def test_bfloat16_activations_stay_near_float32() -> None:
    """As on a GPU; weights and log-probabilities are float32 there, too."""
    exact, rough = learner(), learner(autocast="bfloat16")
    values = [each.step(ragged((9, 14, 11))).values for each in (exact, rough)]
    assert values[0]["nll"] == pytest.approx(values[1]["nll"], rel=0.02)
    assert values[0]["nll"] != values[1]["nll"]
    assert {each.dtype for each in weights(rough).values()} == {torch.float32}


@pytest.mark.parametrize("device", ["cupu", "cuda:x", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_named_with_those_that_are(
    device: str, tmp_path: Path
) -> None:
    models.tiny(tmp_path)
    for place in (lambda: placed(device), lambda: read(tmp_path, device)):
        with pytest.raises(Usage, match=f"no device '{device}' here: ") as caught:
            place()
        assert caught.value.hint.startswith("one of: cpu")
    assert placed("cpu") == "cpu"
    assert placed("") in ("cpu", "cuda")


def test_a_folder_that_holds_no_model_is_refused(tmp_path: Path) -> None:
    options = Options(objective=TOKEN)
    with pytest.raises(NotFound, match=r"no config\.json"):
        Learner.open(tmp_path, options)
    models.tiny(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InvalidData, match="can't be loaded"):
        Learner.open(tmp_path, options, device="cpu")
