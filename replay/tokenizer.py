"""What whoever samples and whoever trains have to agree about in a tokenizer.

Pure functions over a tokenizer of Transformers, which is not imported.
"""

from collections.abc import Sequence
from typing import Any, Final

from protocol.actions import Json
from replay.model_folder import hash_of

_CUT: Final = 1
"""Where a name of a token that only the template may write is cut in what others wrote."""


def tokenizer_hash(tokenizer: Any) -> str:
    """As replies record it, see `protocol.sampled.Sampled.tokenizer`."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return hash_of(backend.to_str() if backend is not None else tokenizer.get_vocab())


def template_hash(tokenizer: Any, values: dict[str, Json]) -> str:
    """Of the chat template and the values that it is given."""
    return hash_of([tokenizer.chat_template, values])


def control_tokens(tokenizer: Any) -> tuple[str, ...]:
    """Special tokens: those that shape a conversation, the longest first."""
    every = {str(each) for each in tokenizer.all_special_tokens}
    return tuple(sorted(every, key=lambda each: (-len(each), each)))


def plain(content: str, control: Sequence[str]) -> str:
    """What somebody else wrote, in which no token of the template's own can be spelled."""
    for token in control:
        if token in content:
            content = content.replace(token, f"{token[:_CUT]} {token[_CUT:]}")
    return content
