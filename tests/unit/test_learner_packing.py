"""However examples share passes, the gradient is the same."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    MistralConfig,
)

from protocol.errors import InvalidData
from tests.learners import SIZE, TOKEN, gradient, learner, options, ragged
from trainer.learner import network
from trainer.learner.learner import Learner
from trainer.learner.options import Objective, Options
from trainer.learner.packing import PackedBatcher, PaddedBatcher, filled, spans_of
from trainer.learner.weighing import weigh

LENGTHS = (17, 3, 30, 9, 9, 2, 25, 11)


def near(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, atol=2e-6, rtol=1e-4)


def mixed() -> list[Any]:
    return ragged(LENGTHS) + ragged(LENGTHS, pg=True, seed=1)


@pytest.mark.parametrize("per", ["token", "rollout"])
def test_packed_is_padded_is_each_alone(per: Any) -> None:
    objective = Objective(per=per)
    wanted = gradient(learner(objective, packing="padded", tokens=1), mixed())
    for packing in ("own", "model", "padded"):
        for tokens in (40, 1_000):
            found = gradient(learner(objective, packing=packing, tokens=tokens), mixed())
            assert near(found, wanted), (packing, tokens)


def test_a_batch_in_many_passes_is_the_batch_in_one() -> None:
    """The weights of a token are of the whole batch, so passes only add up."""
    one, many = (learner(tokens=tokens) for tokens in (10_000, 30))
    values = [each.step(mixed()).values for each in (one, many)]
    assert values[0]["passes"] == 1
    assert values[1]["passes"] > 5
    for name in ("loss", "grad_norm", "ratio", "ess", "entropy", "kl_behaviour"):
        assert values[0][name] == pytest.approx(values[1][name], rel=1e-4), name


def test_logits_in_pieces_are_logits_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = gradient(learner(), mixed())
    monkeypatch.setattr(network, "MAX_LOGITS", 7 * SIZE)
    assert near(gradient(learner(), mixed()), wanted)


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=30), tokens=st.integers(8, 120))
@settings(max_examples=60, deadline=None)
def test_every_trained_token_is_in_one_pass(lengths: list[int], tokens: int) -> None:
    batch = weigh(ragged(lengths), TOKEN).weighed
    for batcher in (
        PackedBatcher(tokens),
        PaddedBatcher(tokens),
        PaddedBatcher(tokens, ordered=False),
    ):
        passes = batcher(batch)
        seen = sorted(id(each) for one in passes for each in one.examples)
        assert seen == sorted(map(id, batch))
        assert all(one.ids.numel() <= max(tokens, len(one.examples[0].ids)) for one in passes)
        for one in passes:
            at = 0
            for own in one.examples:
                places = one.places[at : at + len(own.places)]
                assert one.ids.flatten()[places].tolist() == own.ids[own.places].tolist()
                assert one.positions.flatten()[places].tolist() == own.places.tolist()
                at += len(own.places)
    assert filled(PackedBatcher(tokens)(batch)) == 1


@given(lengths=st.lists(st.integers(1, 50), min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_what_is_filled_is_drained_again(lengths: list[int]) -> None:
    lengths = sorted(lengths, reverse=True)
    row = torch.arange(sum(lengths))
    found = []
    for span in spans_of(lengths):
        own = row[span.begin : span.begin + span.tokens]
        if span.fill is not None and span.drain is not None:
            padded = own[span.fill]
            assert len(padded) == span.count * span.length
            own = padded[span.drain]
        found += own.tolist()
    assert found == row.tolist()


def _mistral(**given: Any) -> Any:
    from transformers import MistralForCausalLM

    return MistralForCausalLM(
        MistralConfig(
            vocab_size=SIZE,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=64,
            **given,
        )
    )


@pytest.mark.parametrize(
    ("model", "mode"),
    [
        (lambda: _mistral(sliding_window=5), "own"),
        (lambda: _mistral(sliding_window=None, attn_implementation="eager"), "own"),
        (
            lambda: GPT2LMHeadModel(
                GPT2Config(vocab_size=SIZE, n_positions=64, n_embd=16, n_layer=2, n_head=2)
            ),
            "own",
        ),
    ],
)
def test_other_models_are_read_as_they_read_themselves(model: Any, mode: str) -> None:
    """Windows, learned positions, dropout in training: each way gives each alone."""
    torch.manual_seed(0)
    made = model().eval()
    for each in made.modules():
        if isinstance(each, torch.nn.Dropout):
            each.p = 0.0
    alone = Learner(made, None, options(packing="padded", tokens=1))
    batch = ragged((17, 3, 30, 9))
    wanted = gradient(alone, batch)
    mine = Learner(made, None, options())
    assert mine.network.mode == mode
    assert near(gradient(mine, batch), wanted)


def _tiny(kind: str, **given: Any) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        kind,
        **{
            "vocab_size": SIZE,
            "hidden_size": 16,
            "intermediate_size": 16,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 8,
            "max_position_embeddings": 64,
            "initializer_range": 0.3,
            **given,
        },
    )
    return AutoModelForCausalLM.from_config(config).eval()


CHUNKED: dict[str, Any] = {"intermediate_size_mlp": 16, "num_local_experts": 2, "pad_token_id": 0}

EXPERTS: dict[str, Any] = {
    "num_experts": 2,
    "num_experts_per_tok": 1,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "max_window_layers": 2,
}

WINDOW: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 12}


@pytest.mark.parametrize(
    ("kind", "given", "mode"),
    [
        ("llama4_text", {**CHUNKED, "attention_chunk_size": 12}, "model"),
        ("qwen2_moe", {**EXPERTS, **WINDOW}, "model"),
        ("qwen2_moe", EXPERTS, "own"),
        ("qwen2", {"max_window_layers": 2, **WINDOW}, "own"),
        ("qwen3_moe", {**EXPERTS, **WINDOW}, "own"),
    ],
)
def test_windows_are_kept_beyond_what_a_model_is_tried_with(
    kind: str, given: dict[str, Any], mode: str
) -> None:
    """Whether they are handed to the attention or are in the mask that it does not look at."""
    made = _tiny(kind, **given)
    batch = ragged((40, 9, 31, 17))
    wanted = []
    with torch.no_grad():
        for each in batch:
            ids = torch.as_tensor(each.ids, dtype=torch.long)[None]
            logits = made(input_ids=ids, use_cache=False).logits[0, :-1]
            said = logits.log_softmax(-1).gather(-1, ids[0, 1:, None])[:, 0].numpy()
            wanted.append(said[len(each.ids) // 2 - 1 :])
    mine = Learner(made, None, options())
    assert mine.network.mode == mode
    for known, own in zip(mine.known(batch), wanted, strict=True):
        assert np.allclose(known[len(known) // 2 :], own, atol=1e-4)


def test_chunks_are_never_read_with_the_attention_of_ours() -> None:
    made = _tiny("llama4_text", **CHUNKED, attention_chunk_size=12)
    with pytest.raises(InvalidData, match="chunked_attention") as caught:
        Learner(made, None, options(packing="own"))
    assert "packing = 'auto'" in caught.value.hint


def test_a_model_with_a_state_is_padded() -> None:
    """What it carries from token to token would go on from one example into the next."""
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    made = MambaForCausalLM(
        MambaConfig(vocab_size=SIZE, hidden_size=16, num_hidden_layers=1, state_size=4)
    )
    mine = Learner(made, None, options())
    assert mine.network.mode == "padded"
    batch = ragged((9, 4, 6))
    alone = Learner(made, None, options(packing="padded", tokens=1))
    assert near(gradient(mine, batch), gradient(alone, batch))
    with pytest.raises(InvalidData, match="can't be read with packing = 'own'"):
        Learner(made, None, options(packing="own"))


def test_logits_that_are_more_than_a_head_are_found_out() -> None:
    """A model that cuts its logits is not read as if they were its head's."""
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    made = Gemma2ForCausalLM(
        Gemma2Config(
            vocab_size=SIZE,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=8,
            sliding_window=4,
            initializer_range=1.0,
            final_logit_softcapping=2.0,
        )
    )
    mine = Learner(made, None, Options(objective=TOKEN))
    (one,) = ragged([12])
    ids = torch.as_tensor(one.ids, dtype=torch.long)[None]
    labels = torch.where(torch.as_tensor(one.ce)[None] > 0, ids, -100)
    wanted = made(input_ids=ids, labels=labels).loss.item()
    assert mine.evaluate([one])["nll"] == pytest.approx(wanted, abs=1e-4)


def test_what_is_written_is_read_with_the_attention_of_its_own(tmp_path: Path) -> None:
    """How the learner reads is not a part of the model."""
    mine = learner()
    assert mine.network.mode == "own"
    mine.write(tmp_path)
    assert "podium" not in (tmp_path / "config.json").read_text()
    other = AutoModelForCausalLM.from_pretrained(tmp_path)
    (one,) = ragged([12])
    ids = torch.as_tensor(one.ids, dtype=torch.long)[None]
    with torch.no_grad():
        known = other(input_ids=ids).logits[0, :-1].log_softmax(-1)
    wanted = known.gather(-1, ids[0, 1:, None])[5:, 0].numpy()
    assert np.allclose(mine.known([one])[0][6:], wanted, atol=1e-5)
