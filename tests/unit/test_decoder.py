"""The plain decoder: the library's logits, whatever rows come, go, move, or go on from others."""

import copy
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from actors.models import decoder as reading
from actors.models.decoder import AHEAD, ALIGNED, Decoder, Kept, Slots, decoder, fits
from actors.models.loading import Loaded, living
from actors.models.question import Sampling
from actors.models.sampler import Batch, Row
from actors.models.serving import Batching
from tests.models import model, recomputed, tokenizer

CLOSE = 2e-5
"""See `test_sampler`."""

SIZES: dict[str, Any] = {
    "vocab_size": len(tokenizer()),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.3,
    "eos_token_id": 2,
    "pad_token_id": 0,
}


def made(config: Any) -> Any:
    torch.manual_seed(3)
    found = AutoModelForCausalLM.from_config(config).eval()
    for name, weight in found.named_parameters():
        if "norm" in name or "bias" in name:
            torch.nn.init.uniform_(weight, 0.5, 1.5)
    return found


@pytest.fixture(scope="module")
def qwen() -> Any:
    return made(Qwen3Config(head_dim=8, **SIZES))


@pytest.mark.parametrize(
    "config",
    [
        Qwen3Config(head_dim=8, **SIZES),
        Qwen3Config(head_dim=16, tie_word_embeddings=True, **SIZES),
        Qwen2Config(**SIZES),
        LlamaConfig(attention_bias=True, **SIZES),
        LlamaConfig(
            rope_parameters={
                "rope_type": "llama3",
                "rope_theta": 10_000.0,
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
            **SIZES,
        ),
    ],
    ids=["qwen3", "wide heads, tied", "qwen2", "biases", "positions of llama3"],
)
def test_its_logits_are_the_library_s(config: Any) -> None:
    found = made(config)
    plain = decoder(found)
    assert plain is not None
    prompts = [[5, 6, 7], [9] * 70, [30]]
    with torch.inference_mode():
        slots = Slots(plain)
        logits = slots.join(prompts)
        for token in (4, 8, 15):
            for row, ids in enumerate(prompts):
                wanted = found(input_ids=torch.tensor([ids])).logits[0, -1]
                assert torch.allclose(logits[row], wanted, atol=1e-5 * float(wanted.abs().max()))
            prompts = [[*ids, token] for ids in prompts]
            logits = slots.read([token] * 3)


@pytest.mark.parametrize(
    "change",
    [
        {"sliding_window": 4, "use_sliding_window": True, "max_window_layers": 0},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}},
    ],
)
def test_what_it_can_not_do_is_left_to_the_library(change: dict[str, Any]) -> None:
    assert not fits(made(Qwen3Config(head_dim=8, **{**SIZES, **change})))


def test_a_model_that_only_looks_like_one_is_left_to_the_library(
    qwen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qwen.model.norm, "variance_epsilon", 0.5)
    assert fits(qwen)
    assert decoder(qwen) is None


@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")
def test_a_model_with_an_adapter_is_left_to_the_library(qwen: Any) -> None:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    around = get_peft_model(copy.deepcopy(qwen), config)
    assert decoder(around) is None
    assert decoder(around.get_base_model()) is None, "its weights are those without the adapter"


def test_a_model_that_can_t_be_tried_is_left_to_the_library() -> None:
    few = made(Qwen3Config(head_dim=8, **{**SIZES, "vocab_size": 4}))
    assert fits(few)
    assert decoder(few) is None


def test_a_long_prompt_is_read_in_pieces(qwen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "READ", 16)
    plain = decoder(qwen)
    assert plain is not None
    prompts = [[5] * 16, list(range(3, 90)), list(range(3, 130))]
    with torch.inference_mode():
        slots = Slots(plain)
        for ids in prompts:  # the last one goes on from what is kept of the one before
            found = slots.join([ids])[-1]
            wanted = qwen(input_ids=torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(found, wanted, atol=1e-5 * float(wanted.abs().max()))
            slots.keep([])
        assert slots._ahead.shape[0] <= 16
        assert slots._ahead.numel() < 16 * 256


class _Plan:
    """What is done to rows, and what each must say."""

    def __init__(self, found: Any, plain: Decoder, aligned: int) -> None:
        self._model, self._slots = found, Slots(plain)
        self._slots._aligned = aligned  # as on a GPU
        self.rows: list[list[int]] = []

    def check(self, logits: torch.Tensor, rows: list[list[int]]) -> None:
        for row, ids in enumerate(rows):
            wanted = self._model(input_ids=torch.tensor([ids])).logits[0, -1]
            assert torch.allclose(logits[row], wanted, atol=1e-4)

    def join(self, prompts: list[list[int]]) -> None:
        self.check(self._slots.join(prompts), prompts)
        self.rows += [list(ids) for ids in prompts]

    def read(self, token: int) -> None:
        tokens = [(token + place) % 90 + 3 for place in range(len(self.rows))]
        logits = self._slots.read(tokens)
        for ids, each in zip(self.rows, tokens, strict=True):
            ids.append(each)
        self.check(logits, self.rows)

    def keep(self, kept: list[int]) -> None:
        self._slots.keep(kept)
        self.rows = [self.rows[place] for place in kept]


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_rows_come_and_go_in_any_order(qwen: Any, seed: int) -> None:
    chance = random.Random(seed)
    plan = _Plan(qwen, Decoder(qwen), chance.choice([1, ALIGNED]))
    ended: list[list[int]] = [[7, 7, 7]]
    with torch.inference_mode():
        for _ in range(8):
            match chance.choice(["join", "join", "read", "read", "keep"]):
                case "join":
                    fresh = [
                        [chance.randrange(90) for _ in range(chance.randrange(1, 40))]
                        for _ in range(chance.randrange(1, 4))
                    ]
                    fresh.append([*chance.choice(ended), *fresh[0]])  # goes on from another
                    fresh.append(list(fresh[0]))  # of one group
                    plan.join(fresh)
                case "read" if plan.rows:
                    plan.read(chance.randrange(90))
                case "keep" if plan.rows:
                    count = chance.randrange(len(plan.rows) + 1)
                    kept = chance.sample(range(len(plan.rows)), count)
                    ended += [ids for place, ids in enumerate(plan.rows) if place not in kept]
                    plan.keep(kept)
                case _:
                    pass


def test_a_mask_begins_where_a_gpu_can_read_it(qwen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[int] = []
    attention = torch.nn.functional.scaled_dot_product_attention

    def seen(*args: Any, **given: Any) -> Any:
        begun.append(given["attn_mask"].storage_offset())
        return attention(*args, **given)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", seen)
    with torch.inference_mode():
        slots = Slots(Decoder(qwen))
        slots._aligned = ALIGNED  # as on a GPU
        slots.join([[5] * 13, [6, 7, 8]])
        slots.keep([1])
        slots.read([3])
    assert slots._starts == [10]
    assert begun
    assert all(offset % ALIGNED == 0 for offset in begun)


def test_rows_go_on_when_all_columns_are_used_up(qwen: Any) -> None:
    with torch.inference_mode():
        slots, ids = Slots(Decoder(qwen)), [[5], [6, 7]]
        logits = slots.join(ids)
        for place in range(3 * AHEAD):
            if place == 200:
                slots.keep([1])
                ids = [ids[1]]
            token = place % 90
            logits = slots.read([token] * len(ids))
            ids = [[*each, token] for each in ids]
        wanted = qwen(input_ids=torch.tensor(ids)).logits[0, -1]
    assert torch.allclose(logits[0], wanted, atol=1e-4)


def test_what_is_known_of_a_prompt_is_not_read_again(
    qwen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = Decoder(qwen)
    count: list[int] = []
    attended = plain.attended

    def counted(layer: Any, x: torch.Tensor, *more: torch.Tensor) -> Any:
        count.append(len(x))
        return attended(layer, x, *more)

    monkeypatch.setattr(plain, "attended", counted)
    with torch.inference_mode():
        slots = Slots(plain)
        slots.join([[1, 2, 3, 4]] * 8)
        assert count == [4, 4], "a group's prompt is read once"
        slots.read(list(range(8)))
        slots.keep([])
        count.clear()
        slots.join([[1, 2, 3, 4, 5, 9, 9], [1, 2, 3, 4], [1, 2, 3, 8]])
    assert count == [2 + 1 + 1] * 2


def test_other_weights_forget_what_is_kept() -> None:
    found = model(tokenizer())
    loaded = living(found, tokenizer(), "1")
    assert loaded.decoder is not None
    first = sampled(loaded, [5, 6, 7])
    with torch.no_grad():
        for weight in found.parameters():
            weight.mul_(0.7)
    loaded.refresh("2", "hash")
    second = sampled(loaded, [5, 6, 7])
    assert (loaded.name, loaded.weights) == ("2", "hash")
    assert first.logprobs != second.logprobs
    wanted = recomputed(found, second.prompt, second.output)
    assert second.logprobs == pytest.approx(wanted, abs=CLOSE)


def test_the_same_bits_are_sampled_again_once_all_is_forgotten(qwen: Any) -> None:
    loaded = living(qwen, tokenizer())
    first = sampled(loaded, [5, 6, 7])
    loaded.forget()
    assert sampled(loaded, [5, 6, 7]).logprobs == first.logprobs


def sampled(loaded: Loaded, prompt: list[int]) -> Row:
    row = Row(prompt, Sampling(seed=1), 8, math.inf)
    batch = Batch(loaded, Batching())
    batch.waiting.append(row)
    while not batch.idle:
        batch.step(0.0)
    return row


def test_a_conversation_that_goes_on_from_kept_rows_is_sampled_exactly(qwen: Any) -> None:
    loaded = living(qwen, _words())
    prompt = [5, 6, 7, 8]
    for _ in range(4):
        row = sampled(loaded, prompt)
        wanted = recomputed(qwen, prompt, row.output)
        assert row.logprobs == pytest.approx(wanted, abs=1e-4)
        prompt = [*prompt, *row.output, 9, 10]


def _words() -> Any:
    return tokenizer()


def test_what_is_kept_is_bounded_and_the_oldest_goes() -> None:
    kept = Kept(3 * 4 * 8)
    columns = torch.arange(8.0).view(1, 1, 1, 8, 1)
    for first in range(5):
        kept.add([first, *range(7)], 3, columns)
    assert kept.find((0, *range(9))) is None
    assert kept.find((4, *range(9))) is not None
    found = kept.find((4, 0, 9, 9))
    assert found is not None
    assert found.shape[-2] == 2, "what it has in common with the prompt that the row began with"
    assert kept.find((4, 0)) is None, "the last token's logits are wanted"
    kept.add(range(9), 2, torch.zeros(1, 1, 1, 100, 1))
    assert kept.find(tuple(range(20))) is None, "what is too large is not kept"
    kept.clear()
    assert kept.find((4, *range(9))) is None


def test_a_folder_that_is_none_of_them_is_sampled_as_ever(tmp_path: Path) -> None:
    from transformers import GPT2Config

    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=64, vocab_size=len(tokenizer()))
    loaded = living(AutoModelForCausalLM.from_config(config).eval(), tokenizer())
    assert loaded.decoder is None
    row = sampled(loaded, [5, 6])
    assert row.logprobs == pytest.approx(recomputed(loaded.model, [5, 6], row.output), abs=1e-4)
