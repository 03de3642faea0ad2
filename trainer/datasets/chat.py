"""Messages to tokens, by a tokenizer's own chat template, with an exact mask.

A conversation is rendered as its turns happened: each reply after the prompt that the template
makes of what stood before it, cut where a model that is asked would have been asked. So the mask
covers what the model would write, the token that ends it included, and none of the template's own.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Final

import msgspec
import numpy as np

from protocol.actions import Json
from protocol.errors import InvalidData, NotFound, Usage
from replay.tokenizer import control_tokens, plain, template_hash, tokenizer_hash
from trainer.datasets.conversation import Conversation, Message
from trainer.rows import Floats, Ids

EXTRA: Final = "install it: pip install 'podium[train]'"


@dataclass(frozen=True, slots=True, eq=False)
class Rendered:
    """A conversation as tokens, arrays of shape ``[n]``."""

    ids: Ids
    written: Floats
    """1 on the tokens of all replies, whether they are trained or not."""
    ce: Floats
    """1 on those of the replies that are trained."""
    turns: tuple[int, ...]
    """The questions whose replies it trains."""
    starts: tuple[int, ...]
    """Where each of those replies begins."""


class Chat:
    """A tokenizer with its chat template.

    Args:
        tokenizer: Of Transformers.
        values: What the template is given besides the messages.
    """

    def __init__(self, tokenizer: Any, values: dict[str, Json] | None = None) -> None:
        self.tokenizer, self.values = tokenizer, values or {}
        if not tokenizer.chat_template:
            raise InvalidData(
                "the tokenizer has no chat template", hint="put chat_template.jinja into its folder"
            )
        if not tokenizer.eos_token:
            raise InvalidData(
                "the tokenizer has no token that ends a reply",
                hint="set eos_token in tokenizer_config.json",
            )
        self._control = control_tokens(tokenizer)

    @classmethod
    def load(cls, folder: Path, values: dict[str, Json] | None = None) -> "Chat":
        """Of a folder. No code of its author's runs, and nothing is fetched.

        Raises:
            NotFound: The extra is not installed, or there is no such folder.
            InvalidData: It holds no tokenizer, or one without a chat template.
        """
        try:
            from transformers import AutoTokenizer
        except ImportError as error:
            raise NotFound(f"a tokenizer needs Transformers: {error}", hint=EXTRA) from None
        if not folder.is_dir():
            raise NotFound(f"there is no folder {folder}", hint="name the tokenizer's folder")
        try:
            found = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:  # whatever a foreign library makes of foreign files
            raise InvalidData(
                f"{folder} holds no tokenizer: {' '.join(str(error).split())[:300]}",
                hint="name a folder with tokenizer.json",
            ) from None
        return cls(found, values)

    @cached_property
    def tokenizer_hash(self) -> str:
        """As replies record it."""
        return tokenizer_hash(self.tokenizer)

    @cached_property
    def template_hash(self) -> str:
        """Of the chat template and the values that it is given."""
        return template_hash(self.tokenizer, self.values)

    def render(self, talk: Conversation) -> list[Rendered]:
        """The rows of a conversation: one, where its template shows earlier turns as they were.

        Raises:
            InvalidData: The template refuses the messages, or does not end a reply as its tokenizer
                says.
        """
        found: list[_Line] = []
        for place in talk.replies:
            before = talk.messages[: place.message]
            prompt = self._text(before, talk.tools, ask=True)
            whole = self._text(talk.messages[: place.message + 1], talk.tools, ask=False)
            said = self._reply(prompt, whole)
            line = next((each for each in reversed(found) if prompt.startswith(each.text)), None)
            if line is None:
                found.append(line := _Line())
            line.parts.append((prompt[len(line.text) :], 0))
            line.parts.append((said, 2 if place.trained else 1))
            if place.trained:
                line.turns.append(place.turn)
            line.text = prompt + said
        return [
            each.rendered(self._ids([text for text, _ in each.parts]))
            for each in found
            if each.turns
        ]

    def decode(self, ids: Any) -> str:
        """What ids spell, every token as it is."""
        said: str = self.tokenizer.decode(
            list(map(int, ids)), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return said

    def _reply(self, prompt: str, whole: str) -> str:
        end = self.tokenizer.eos_token
        if not whole.startswith(prompt):
            raise InvalidData(
                "the chat template writes something else before a reply than it asks for one with",
                hint="its values may help: [template_values] enable_thinking = false",
            )
        said, found, _tail = whole[len(prompt) :].rpartition(end)
        if not found:
            raise InvalidData(
                f"the chat template does not end a reply with the tokenizer's {end!r}",
                hint="set eos_token in tokenizer_config.json to the token that ends a turn",
            )
        reply: str = said + end
        return reply

    def _text(self, messages: list[Message], tools: list[Message], *, ask: bool) -> str:
        shown = [self._shown(each) for each in messages]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                shown,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=ask,
                **self.values,
            )
        except Exception as error:  # a template is a program of its own
            raise InvalidData(
                f"the chat template refuses the messages: {type(error).__name__}: {error}",
                hint="correct chat_template.jinja in the tokenizer's folder",
            ) from None
        return rendered

    def _shown(self, message: Message) -> Message:
        """A message as templates take it: arguments as objects, no control tokens in content."""
        if message["role"] == "assistant":
            return with_objects(message)
        return {**message, "content": plain(message.get("content") or "", self._control)}

    def _ids(self, texts: list[str]) -> list[list[int]]:
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids


class _Line:
    """A row that grows."""

    def __init__(self) -> None:
        self.text = ""
        self.parts: list[tuple[str, int]] = []
        """Texts: of the context (0), of a reply (1), of a reply that is trained (2)."""
        self.turns: list[int] = []

    def rendered(self, ids: list[list[int]]) -> Rendered:
        """The row, of which these are the tokens of its parts."""
        sizes = [len(part) for part in ids]
        of_parts = np.array([kind for _, kind in self.parts])
        kinds = np.repeat(of_parts, sizes)
        begins = np.cumsum([0, *sizes[:-1]])
        return Rendered(
            ids=np.array(list(chain.from_iterable(ids)), np.int32),
            written=(kinds > 0).astype(np.float32),
            ce=(kinds > 1).astype(np.float32),
            turns=tuple(self.turns),
            starts=tuple(begins[of_parts > 1].tolist()),
        )


def with_objects(message: Message) -> Message:
    """A message whose calls have their arguments as objects, as templates and ATIF want them."""
    if not message.get("tool_calls"):
        return message
    calls = [
        {**call, "function": {**call["function"], "arguments": _object(call)}}
        for call in message["tool_calls"]
    ]
    return {**message, "content": message.get("content") or "", "tool_calls": calls}


def _object(call: Message) -> Json:
    arguments = call["function"]["arguments"]
    try:
        return msgspec.json.decode(arguments) if isinstance(arguments, str) else arguments
    except msgspec.DecodeError:
        raise Usage(
            f"call {call.get('id', '')} has arguments that are no JSON: {arguments[:80]!r}"
        ) from None
