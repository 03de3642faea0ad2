"""The batch of a model: what a row's tokens are depends on nothing but the row."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    GPT2Config,
    MambaConfig,
    MistralConfig,
)

from actors.models.loading import Loaded, load, look
from actors.models.question import Sampling
from actors.models.sampler import Batch, Row, draw
from actors.models.serving import Batching
from protocol.errors import InvalidData
from protocol.model_versions import BASE
from replay import model_folder
from tests.models import recomputed, save, tiny, tokenizer

CLOSE = 2e-5
"""Nats by which two ways to the same float32 log-probability may differ."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def loaded(folder: Path) -> Loaded:
    return load(model_folder.find(folder, BASE), Batching())


def row(prompt: list[int], seed: int = 0, limit: int = 8, **sampling: Any) -> Row:
    said = Sampling(seed=seed, **sampling)
    return Row(prompt, said, limit, math.inf)


def run(batch: Batch, *rows: Row) -> None:
    batch.waiting.extend(rows)
    while not batch.idle:
        batch.step(0.0)


PROMPTS = [[5, 6, 7], [9] * 40, [30, 31], list(range(100, 117)), [4], [200, 3, 77, 12, 90]]


def alone(loaded: Loaded, prompt: list[int], seed: int, **sampling: Any) -> Row:
    single = row(prompt, seed, **sampling)
    run(Batch(loaded, Batching()), single)
    return single


def same(found: Row, wanted: Row) -> None:
    assert found.output == wanted.output
    assert found.logprobs == pytest.approx(wanted.logprobs, abs=CLOSE)
    assert found.ended == wanted.ended


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_a_batch_says_what_each_row_would_say_alone(loaded: Loaded, temperature: float) -> None:
    rows = [row(prompt, seed, temperature=temperature) for seed, prompt in enumerate(PROMPTS)]
    run(Batch(loaded, Batching()), *rows)
    for seed, (prompt, found) in enumerate(zip(PROMPTS, rows, strict=True)):
        same(found, alone(loaded, prompt, seed, temperature=temperature))


def test_rows_that_join_while_others_are_at_work_change_nothing(loaded: Loaded) -> None:
    batch = Batch(loaded, Batching())
    limits = [3, 12, 7, 2, 9, 5]
    rows = [
        row(p, seed, limit) for seed, (p, limit) in enumerate(zip(PROMPTS, limits, strict=True))
    ]
    for each in rows:
        batch.waiting.append(each)
        batch.step(0.0)
    run(batch)
    for seed, (prompt, found) in enumerate(zip(PROMPTS, rows, strict=True)):
        same(found, alone(loaded, prompt, seed, limit=limits[seed]))


def test_a_short_reply_is_over_before_a_long_one_beside_it(loaded: Loaded) -> None:
    batch = Batch(loaded, Batching())
    short, long = row([5, 6], limit=2), row([7, 8], limit=50)
    batch.waiting.extend([long, short])
    batch.step(0.0)
    assert batch.step(0.0) == [short]
    assert batch.working == [long]


@pytest.mark.parametrize("temperature", [0.6, 1.0, 1.7])
def test_log_probabilities_are_those_of_one_forward_pass(
    loaded: Loaded, temperature: float
) -> None:
    rows = [row(prompt, 7, temperature=temperature) for prompt in PROMPTS]
    run(Batch(loaded, Batching()), *rows)
    for prompt, found in zip(PROMPTS, rows, strict=True):
        wanted = recomputed(loaded.model, prompt, found.output, temperature)
        assert found.logprobs == pytest.approx(wanted, abs=CLOSE)
        raw = recomputed(loaded.model, prompt, found.output)
        assert (temperature == 1.0) == (found.logprobs == pytest.approx(raw, abs=CLOSE))


def test_padding_on_either_side_changes_no_logits(loaded: Loaded) -> None:
    prompt = [5, 6, 7, 8]
    with torch.inference_mode():
        plain = loaded.model(input_ids=torch.tensor([prompt])).logits[0, -1]
        left = loaded.model(
            input_ids=torch.tensor([[0, 0, 0, *prompt]]),
            attention_mask=torch.tensor([[0, 0, 0, 1, 1, 1, 1]]),
            position_ids=torch.tensor([[0, 0, 0, 0, 1, 2, 3]]),
        ).logits[0, -1]
        right = loaded.model(
            input_ids=torch.tensor([[*prompt, 0, 0]]),
            attention_mask=torch.tensor([[1, 1, 1, 1, 0, 0]]),
        ).logits[0, 3]
    beside = row(prompt), row([9] * 50)
    run(Batch(loaded, Batching()), *beside)
    first = torch.log_softmax(plain, -1)[beside[0].output[0]].item()
    assert torch.allclose(plain, left, atol=1e-5)
    assert torch.allclose(plain, right, atol=1e-5)
    assert beside[0].logprobs[0] == pytest.approx(first, abs=CLOSE)


def test_a_batch_takes_no_more_than_it_has_room_for(loaded: Loaded) -> None:
    batch = Batch(loaded, Batching(rows=2))
    rows = [row([5], limit=3) for _ in range(5)]
    batch.waiting.extend(rows)
    most = 0
    while not batch.idle:
        batch.step(0.0)
        most = max(most, len(batch.working))
    assert most == 2
    assert all(each.ended == "length" for each in rows)


def test_a_prompt_that_is_longer_than_all_room_is_read_alone(loaded: Loaded) -> None:
    batch = Batch(loaded, Batching(tokens=10))
    rows = [row([5] * 30, limit=2), row([6], limit=2)]
    run(batch, *rows)
    assert [each.ended for each in rows] == ["length", "length"]


def test_a_row_whose_time_is_over_leaves_without_harm_to_the_others(loaded: Loaded) -> None:
    batch = Batch(loaded, Batching(rows=2))
    late, other, waits = row([5, 6], 1, 40), row([7], 2, 10), row([8], 3, 40)
    late.deadline = waits.deadline = 5.0
    batch.waiting.extend([late, other, waits])
    batch.step(0.0)
    assert set(batch.step(9.0)) >= {late, waits}
    run(batch)
    assert [late.ended, waits.ended] == ["stopped", "stopped"]
    same(other, alone(loaded, [7], 2, limit=10))


def test_the_token_that_ends_a_reply_is_its_last(loaded: Loaded) -> None:
    tried = [row([5, 6, 7], seed, 80) for seed in range(24)]
    run(Batch(loaded, Batching()), *tried)
    stopped = [each for each in tried if each.ended == "stop"]
    assert stopped
    for each in stopped:
        assert each.output[-1] in loaded.ends
        assert not loaded.ends & {*each.output[:-1]}


def test_a_batch_that_fails_gives_up_its_rows_and_goes_on(loaded: Loaded) -> None:
    batch = Batch(loaded, Batching())
    broken = row([10**6])  # no such token
    batch.waiting.append(broken)
    with pytest.raises(IndexError):
        batch.step(0.0)
    assert batch.fail("out of range") == [broken]
    late, next_to_it = row([5]), row([10**6])
    late.deadline = 1.0
    batch.waiting.extend([late, next_to_it])
    with pytest.raises(IndexError):
        batch.step(2.0)
    assert batch.fail("out of range") == [late, next_to_it], "each is heard of"
    assert late.error == ""
    after = row([5, 6, 7])
    run(batch, after)
    same(after, alone(loaded, [5, 6, 7], 0))


SMALL: dict[str, Any] = {"vocab_size": len(tokenizer()), "eos_token_id": 2, "pad_token_id": 0}
HEADS: dict[str, Any] = {
    **SMALL,
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "initializer_range": 0.3,
}


@pytest.mark.parametrize(
    "config",
    [
        GPT2Config(n_embd=16, n_layer=2, n_head=2, n_positions=256, bos_token_id=0, **SMALL),
        BloomConfig(hidden_size=16, n_layer=2, n_head=2, bos_token_id=0, **SMALL),
        MistralConfig(sliding_window=6, head_dim=8, **HEADS),
    ],
    ids=["positions that are learned", "no positions", "a sliding window"],
)
def test_any_decoder_can_be_sampled(config: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    save(tmp_path, AutoModelForCausalLM.from_config(config), tokenizer())
    found = load(model_folder.find(tmp_path, BASE), Batching())
    rows = [row(prompt, seed, 20) for seed, prompt in enumerate(PROMPTS)]
    batch = Batch(found, Batching())
    for each in rows:
        batch.waiting.append(each)
        batch.step(0.0)
    run(batch)
    for prompt, each in zip(PROMPTS, rows, strict=True):
        wanted = recomputed(found.model, prompt, each.output)
        assert each.logprobs == pytest.approx(wanted, abs=1e-4)


def test_a_model_that_keeps_another_kind_of_state_is_refused(tmp_path: Path) -> None:
    config = MambaConfig(hidden_size=16, num_hidden_layers=1, state_size=4, **SMALL)
    save(tmp_path, AutoModelForCausalLM.from_config(config), tokenizer())
    with pytest.raises(InvalidData, match="it keeps a state"):
        load(model_folder.find(tmp_path, BASE), Batching())


def test_a_version_that_is_not_whole_is_seen_without_loading_it(tmp_path: Path) -> None:
    version = model_folder.find(tiny(tmp_path), BASE)
    look(version)
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(InvalidData, match="can't be loaded"):
        look(version)
    weights.write_bytes(whole)
    (tmp_path / "chat_template.jinja").unlink()
    with pytest.raises(InvalidData, match="no chat template"):
        look(version)


# ------------------------------------------------------------------------------------------- draw

LOGITS = st.lists(st.floats(-8, 8, width=32), min_size=2, max_size=12)
CHANCE = st.floats(0, 1, exclude_max=True)


@given(logits=LOGITS, chance=CHANCE, heat=st.floats(0.1, 4), top=st.floats(0.05, 1))
def test_what_is_drawn_is_in_the_distribution_that_is_recorded(
    logits: list[float], chance: float, heat: float, top: float
) -> None:
    for k in range(len(logits) + 1):
        sampling = Sampling(temperature=heat, top_p=top, top_k=k)
        token, logprob = draw(torch.tensor([logits]), [sampling], [chance])
        wanted = expected(logits, sampling)
        assert wanted[int(token)] > 0
        assert math.exp(float(logprob)) == pytest.approx(wanted[int(token)], rel=1e-4)


def expected(logits: list[float], sampling: Sampling) -> list[float]:
    """The distribution in plain Python, from the words of `Sampling`."""
    scaled = torch.tensor(logits) / sampling.temperature
    order = sorted(range(len(logits)), key=lambda place: -scaled[place].item())
    kept = order[: sampling.top_k or len(order)]
    chance = torch.softmax(scaled[kept], -1).tolist()
    if sampling.top_p < 1:
        before, nucleus = 0.0, list[int]()
        for place, share in zip(kept, chance, strict=True):
            assume(abs(before - sampling.top_p) > 1e-5)  # either may be the last one
            if nucleus and before >= sampling.top_p:
                break
            nucleus.append(place)
            before += share
        kept = nucleus
    final = torch.softmax(scaled[kept], -1).tolist()
    found = [0.0] * len(logits)
    for place, share in zip(kept, final, strict=True):
        found[place] = share
    return found


def test_tokens_come_as_often_as_the_distribution_says() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -1.0]])
    wanted = torch.softmax(logits[0], -1)
    count = 4_000
    chances = [(place + 0.5) / count for place in range(count)]
    tokens, _ = draw(logits.expand(count, -1), [Sampling()] * count, chances)
    share = torch.bincount(tokens, minlength=4) / count
    assert torch.allclose(share, wanted, atol=1e-3)


def test_no_temperature_takes_the_likeliest_token_for_sure() -> None:
    tokens, logprobs = draw(torch.tensor([[0.0, 3.0, 1.0]]), [Sampling(temperature=0)], [0.99])
    assert (tokens.tolist(), logprobs.tolist()) == ([1], [0.0])


def test_logits_that_are_no_numbers_are_told() -> None:
    for heat in (0.0, 1.0):
        logits = torch.tensor([[0.0, math.nan]])
        _, logprobs = draw(logits, [Sampling(temperature=heat)], [0.5])
        assert math.isnan(logprobs.item())
