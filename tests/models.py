"""Tiny models for tests: made here, saved by `save_pretrained`, loaded by the real code.

A Qwen3-style decoder of some thousand parameters and a byte-level BPE tokenizer with a chat
template. What is made is random but the same each time; `taught` overfits one to conversations.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.logging import disable_progress_bar

from actors.models.question import Question, Sampling

disable_progress_bar()
# Tensors this small gain nothing from more, and lose much where others use the machine, too.
torch.set_num_threads(1)

TEMPLATE: Final = (
    "{% if tools %}<|im_start|>tools\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}<|im_end|>\n{% endif %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
    "{% for call in m.tool_calls or [] %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}'
    "\n</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""ChatML with tools, much as Qwen3 has it."""

SPECIAL: Final = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

CONTEXT: Final = 2_048
"""Tokens of a prompt and its reply."""

Conversation = tuple[dict[str, Any], str]
"""A request with its messages, and tools if any, and the reply to it."""


@cache
def tokenizer(*texts: str, size: int = 320) -> Any:
    """A tokenizer whose vocabulary is made from some texts; every text can be said in it."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=list(SPECIAL),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    made.train_from_iterator(texts or ["the quick brown fox jumps over the lazy dog"], trainer)
    found = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=["<|im_start|>"],
    )
    found.chat_template = TEMPLATE
    return found


def model(words: Any, seed: int = 0, *, width: int = 16, layers: int = 2) -> Any:
    """A model without any training. Its logits differ enough for its samples to be told apart."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(words),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        max_position_embeddings=CONTEXT,
        eos_token_id=words.eos_token_id,
        pad_token_id=words.pad_token_id,
        tie_word_embeddings=True,
        initializer_range=0.3,
    )
    return Qwen3ForCausalLM(config).eval()


def save(folder: Path, made: Any, words: Any) -> Path:
    """A folder that Transformers can load."""
    made.save_pretrained(folder)
    words.save_pretrained(folder)
    return folder


def tiny(folder: Path, seed: int = 0) -> Path:
    """A folder with a model without any training."""
    words = tokenizer()
    return save(folder, model(words, seed), words)


def taught(
    folder: Path, conversations: Sequence[Conversation], *, steps: int = 300, loss: float = 0.005
) -> Path:
    """A folder with a model that replies to these conversations as they say.

    Args:
        folder: Where it goes.
        conversations: What it learns by heart.
        steps: The most steps of training.
        loss: Where training ends, in nats for each token of the replies.
    """
    said = [str(request) for request, _ in conversations]
    words = tokenizer(*said, *(reply for _, reply in conversations), size=900)
    made = model(words, width=48).train()
    rows = [_row(words, request, reply) for request, reply in conversations]
    optimizer = torch.optim.AdamW(made.parameters(), lr=0.01)
    for _ in range(steps):
        total = torch.stack(
            [made(input_ids=ids, labels=labels).loss for ids, labels in rows]
        ).mean()
        optimizer.zero_grad()
        total.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        if total.item() < loss:
            break
    return save(folder, made.eval(), words)


def _row(words: Any, request: dict[str, Any], reply: str) -> tuple[torch.Tensor, torch.Tensor]:
    prompt = words.apply_chat_template(
        request["messages"],
        tools=request.get("tools"),
        tokenize=False,
        add_generation_prompt=True,
    )
    known = words(prompt, add_special_tokens=False)["input_ids"]
    wanted = words(f"{reply}<|im_end|>", add_special_tokens=False)["input_ids"]
    labels = [-100] * len(known) + wanted
    return torch.tensor([known + wanted]), torch.tensor([labels])


def question(text: str = "hello", **sampling: Any) -> Question:
    """What a policy asks."""
    given = {"max_tokens": 12, **sampling}
    return Question(messages=({"role": "user", "content": text},), sampling=Sampling(**given))


def recomputed(
    made: Any, prompt: Sequence[int], output: Sequence[int], temperature: float = 1.0
) -> list[float]:
    """Log-probabilities of sampled tokens, by one forward pass over all of them."""
    with torch.inference_mode():
        logits = made(input_ids=torch.tensor([[*prompt, *output]])).logits[0].float()
    of_output = logits[len(prompt) - 1 : -1] / temperature
    found = torch.log_softmax(of_output, -1).gather(-1, torch.tensor(list(output))[:, None])
    values: list[float] = found[:, 0].tolist()
    return values
