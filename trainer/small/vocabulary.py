"""The vocabulary of a small model, and the template that shapes its conversations.

What the dialect of slots points with is a token each: slots (``@1``), calls (``#1``), entities
(``$1``), and the words of statuses. They are *ordinary* added tokens: a task or a result may spell
them, and is read as it is written. What shapes a conversation are control tokens, which nobody but
the template can write: whoever hosts the model breaks them up in what others wrote.

The rest is byte-level BPE with single digits, so that every text can be spelled, one byte a token
at worst. A pointer beyond those that have tokens is spelled, too, and never taken for a shorter
one.
"""

from collections.abc import Iterable
from typing import Any, Final

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

VOCABULARY: Final = 1_536
"""Tokens in all: a sixth of a model of 0.8M parameters are their embeddings."""

SLOTS: Final = 16
"""Workers of a pool that have a token of their own: more than a small model can tell apart."""

CALLS: Final = 32
"""Calls of a run that have one."""

ENTITIES: Final = 16
"""Marked entities of a task that have one."""

PAD: Final = "<|pad|>"
END: Final = "<|end|>"
"""Ends every message, and so every reply."""

CONTROL: Final = (PAD, END, "<|system|>", "<|user|>", "<|assistant|>")
"""What shapes a conversation."""

STATUSES: Final = (" OK", " PARSE_ERR", " EXEC_ERR", " TIMEOUT", " OPEN")
"""What stands behind the number of a call, its space included."""

MARKS: Final = ("REFUSED", "FINAL", "KNOWN")
"""What else begins a line of what is shown."""

TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Nothing between two messages: so a prompt is the one before, what was replied to it with the
token that ended it, and what came of that, token for token."""


def pointers(slots: int = SLOTS, calls: int = CALLS, entities: int = ENTITIES) -> list[str]:
    """What the dialect points with, as far as it has a token."""
    counts = {"@": slots, "#": calls, "$": entities}
    return [f"{sign}{number}" for sign, count in counts.items() for number in range(1, count + 1)]


def train_tokenizer(
    texts: Iterable[str],
    size: int = VOCABULARY,
    *,
    slots: int = SLOTS,
    calls: int = CALLS,
    entities: int = ENTITIES,
) -> Any:
    """A tokenizer whose merges are learned from texts. The same texts give the same one.

    Args:
        texts: What the model will read and write: prompts and replies, or their parts.
        size: Tokens in all; fewer, if the texts don't give so many.
        slots: Workers that have a token of their own.
        calls: Calls that have one.
        entities: Marked entities that have one.

    Returns:
        A ``PreTrainedTokenizerFast`` with the chat template.

    Raises:
        ValueError: The size has no room for bytes and pointers.
    """
    ordinary = [
        *(AddedToken(text, special=False, single_word=True, normalized=False) for text in MARKS),
        *(AddedToken(text, special=False, normalized=False) for text in STATUSES),
        *(
            # A single word: ``#1`` is not found in ``#123``.
            AddedToken(text, special=False, single_word=True, normalized=False)
            for text in pointers(slots, calls, entities)
        ),
    ]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merged = size - len(ordinary)
    if merged < len(CONTROL) + len(alphabet):
        least = len(CONTROL) + len(alphabet) + len(ordinary)
        raise ValueError(f"{size} tokens are too few: control, bytes and pointers are {least}")
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=merged,
        special_tokens=list(CONTROL),
        initial_alphabet=alphabet,
        min_frequency=2,
        show_progress=False,
    )
    made.train_from_iterator(texts, trainer)
    words = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token=END,
        pad_token=PAD,
        additional_special_tokens=[each for each in CONTROL if each not in (PAD, END)],
        clean_up_tokenization_spaces=False,
    )
    words.add_tokens(ordinary)
    words.chat_template = TEMPLATE
    return words
