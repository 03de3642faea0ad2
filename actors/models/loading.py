"""A version of a model, loaded for real and tried once: weights, tokenizer, chat template.

Only what is in the folder is read: no code of the model's author runs, nothing is fetched, and
weights are safetensors. A version that lacks a weight, or whose numbers are none, is refused.
"""

import importlib
import inspect
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from actors.models.serving import EXTRA, MODULES, Batching
from protocol.actions import Json
from protocol.errors import InvalidData, NotFound
from protocol.limits import MAX_DETAIL_CHARS
from replay.model_folder import WEIGHTS, Version, check
from replay.tokenizer import control_tokens, plain, template_hash, tokenizer_hash

if TYPE_CHECKING:
    import torch

    from actors.models.decoder import Decoder, Slots
    from actors.models.rows import Rows

logger = logging.getLogger("podium.models")

MAX_CONTEXT: Final = 65_536
"""Tokens of one prompt and its reply, whatever a model claims: a question and its reply each have
to fit into one message, with about ten bytes for each token."""

UNSAID_CONTEXT: Final = 2_048
"""Tokens of one prompt and its reply for a model that says nothing of it."""

NO_TEMPLATE: Final = "it has no chat template"


def need() -> None:
    """Import what a model needs. Raises `NotFound` where it is not installed."""
    for module in MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise NotFound(
                f"a local model needs {module}, which can't be imported: {error}", hint=EXTRA
            ) from None


class Loaded:
    """A version that answers.

    Args:
        version: Which one.
        weights: Hash of its weights.
        model: The model, on its device.
        tokenizer: Its tokenizer.
        context: The most tokens of a prompt and its reply.
    """

    def __init__(
        self, version: Version, weights: str, model: Any, tokenizer: Any, context: int
    ) -> None:
        self.name, self.weights = version.name, weights
        self.model, self.tokenizer, self.context = model, tokenizer, context
        self.tokenizer_hash = tokenizer_hash(tokenizer)
        self.ends = _ends(model, tokenizer)
        self._control = control_tokens(tokenizer)
        accepts = inspect.signature(model.forward).parameters
        self._cache = "cache" if "cache" in accepts else "past_key_values"
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in accepts else {}
        self._placed = "position_ids" in accepts
        self._templates: dict[bytes, str] = {}
        self.decoder = _decoder(model)
        """The same model in a form that is faster to sample from; None for most."""

    def rows(self) -> "Rows | Slots":
        """No rows yet, of a batch to be sampled."""
        from actors.models.decoder import Slots
        from actors.models.rows import Rows

        if self.decoder is not None:
            return Slots(self.decoder)
        return Rows(self.logits, self.device)

    def forget(self) -> None:
        """Keep nothing of what was sampled: from here on all is as in a new process, to the bit."""
        if self.decoder is not None:
            self.decoder.kept.clear()

    def refresh(self, name: str, weights: str = "") -> None:
        """The model's weights were changed in place: it is another version. No row may be at work.

        Args:
            name: Of the version.
            weights: Their hash, if it is known.
        """
        self.name, self.weights = name, weights
        if self.decoder is not None:
            self.decoder.refresh()

    @property
    def device(self) -> "torch.device":
        """Where it is."""
        found: torch.device = self.model.device
        return found

    def template_hash(self, values: dict[str, Json]) -> str:
        """Hash of the chat template and the values that it is given."""
        key = msgspec.json.encode(values, order="deterministic")
        if key not in self._templates:
            self._templates[key] = template_hash(self.tokenizer, values)
        return self._templates[key]

    def prompt(
        self, messages: Sequence[dict[str, str]], values: dict[str, Json], before: Sequence[int]
    ) -> tuple[list[int], bool]:
        """Ids of a prompt, and whether it goes on from ``before``.

        It does where its text begins with that of ``before``: what a model typed is read as it
        typed it, however a tokenizer would have cut the same text.

        Raises:
            InvalidData: The chat template refuses the messages.
        """
        text = self._rendered(messages, values)
        if before:
            known = self.text(before)
            if text.startswith(known):
                return [*before, *self._ids(text[len(known) :])], True
        return self._ids(text), False

    def _rendered(self, messages: Sequence[dict[str, str]], values: dict[str, Json]) -> str:
        shown = [
            each
            if each["role"] == "assistant"
            else {**each, "content": plain(each["content"], self._control)}
            for each in messages
        ]
        try:
            rendered: str = self.tokenizer.apply_chat_template(
                shown, tokenize=False, add_generation_prompt=True, **values
            )
        except Exception as error:  # a template is a program of its own
            raise InvalidData(
                f"the chat template refuses the messages: {type(error).__name__}: {error}",
                hint="correct chat_template.jinja in the model's folder",
            ) from None
        return rendered

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def text(self, ids: Sequence[int]) -> str:
        """What ids spell, every token as it is."""
        said: str = self.tokenizer.decode(
            list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False
        )
        return said

    def logits(self, ids: Any, mask: Any, positions: Any, cache: Any) -> Any:
        """Logits of the token after the last column, float32, ``[rows, vocabulary]``."""
        placed = {"position_ids": positions} if self._placed else {}
        made = self.model(
            input_ids=ids,
            attention_mask=mask,
            use_cache=True,
            **{self._cache: cache},
            **placed,
            **self._last,
        )
        return made.logits[:, -1].float()


def living(model: Any, tokenizer: Any, name: str = "living", weights: str = "") -> Loaded:
    """A model in memory that answers, such as one that is being trained; see `Loaded.refresh`.

    Args:
        model: A causal model of Transformers.
        tokenizer: Its tokenizer, with a chat template.
        name: What it is recorded as.
        weights: Hash of its weights, if it is known.

    Raises:
        InvalidData: It can't answer in batches.
    """
    version = Version(name, Path(), None)
    if why := _unfit(model) or ("" if tokenizer.chat_template else NO_TEMPLATE):
        raise _refused(version, why)
    said = getattr(model.config.get_text_config(), "max_position_embeddings", 0) or UNSAID_CONTEXT
    return Loaded(version, weights, model, tokenizer, min(said, MAX_CONTEXT))


def load(version: Version, batching: Batching) -> Loaded:
    """Read a version, compare its hashes, load it, and try it.

    Raises:
        InvalidData: It is damaged, or is none that can answer; the message says why.
        NotFound: The extra is not installed.
    """
    need()
    weights = check(version)
    try:
        tokenizer, model = _read(version.path, batching)
    except Exception as error:  # whatever a foreign library makes of foreign files
        raise _refused(version, f"it can't be loaded: {_said(error)}") from None
    if not tokenizer.chat_template:
        raise _refused(version, NO_TEMPLATE)
    if why := _unfit(model):
        raise _refused(version, why)
    said = getattr(model.config.get_text_config(), "max_position_embeddings", 0) or UNSAID_CONTEXT
    context = min(batching.context or MAX_CONTEXT, said, MAX_CONTEXT)
    loaded = Loaded(version, weights, model, tokenizer, context)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        raise _refused(version, "its tokenizer has more tokens than the model has embeddings")
    _try(version, loaded)
    return loaded


def look(version: Version) -> None:
    """See that a version is whole, without loading its weights: hashes, lengths, template.

    Raises:
        InvalidData: It is damaged, or is none that can answer; the message says why.
        NotFound: The extra is not installed.
    """
    check(version)
    need()
    from safetensors import safe_open

    try:
        for file in sorted(version.path.glob(f"*{WEIGHTS}")):
            with safe_open(file, framework="pt"):  # compares the file's length with its header
                pass
        tokenizer = _tokenizer(version.path)
    except Exception as error:  # whatever a foreign library makes of foreign files
        raise _refused(version, f"it can't be loaded: {_said(error)}") from None
    if not tokenizer.chat_template:
        raise _refused(version, NO_TEMPLATE)


def _decoder(model: Any) -> "Decoder | None":
    from actors.models.decoder import decoder

    return decoder(model)


def _tokenizer(path: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path, local_files_only=True, trust_remote_code=False)


def _refused(version: Version, why: str) -> InvalidData:
    return InvalidData(
        f"version {version.name} in {version.path} is refused: {why}",
        hint="publish a version that is whole",
    )


def _said(error: Exception) -> str:
    """An error of a library's, on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:MAX_DETAIL_CHARS]


def _read(path: Path, batching: Batching) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()  # else each load of a version draws one into the log
    if batching.threads:
        torch.set_num_threads(batching.threads)
    tokenizer = _tokenizer(path)
    device = batching.device or ("cuda" if torch.cuda.is_available() else "cpu")
    dtype = batching.dtype or ("float32" if device == "cpu" else "auto")
    model, told = AutoModelForCausalLM.from_pretrained(
        path,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=dtype,
        output_loading_info=True,
    )
    for what in ("missing_keys", "mismatched_keys", "unexpected_keys"):
        if wrong := sorted(map(str, told.get(what) or ())):
            shown = ", ".join(wrong[:3])
            raise ValueError(f"{len(wrong)} {what.replace('_', ' ')}, such as {shown}")
    return tokenizer, model.to(device).eval()


def _unfit(model: Any) -> str:
    """Why a model can't answer in batches whose rows come and go; "" if it can."""
    config = model.config.get_text_config()
    kinds = {*(getattr(config, "layer_types", None) or ())}
    other = kinds - {"full_attention", "sliding_attention", "chunked_attention"}
    if getattr(model, "_is_stateful", False) or other:
        return f"it keeps a state ({', '.join(sorted(other)) or 'recurrent'}), no keys and values"
    return "it is no decoder" if getattr(model.config, "is_encoder_decoder", False) else ""


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    """Ids of the tokens that end a reply."""
    said = model.generation_config.eos_token_id if model.generation_config is not None else None
    named = said if isinstance(said, list | tuple) else [said]
    return frozenset(each for each in (*named, tokenizer.eos_token_id) if each is not None)


def _try(version: Version, loaded: Loaded) -> None:
    """One step, so that weights without numbers never answer anybody."""
    import torch

    from actors.models.rows import Rows

    try:
        with torch.inference_mode():
            logits = Rows(loaded.logits, loaded.device).join([[0]])
    except Exception as error:
        raise _refused(version, f"a step of it fails: {_said(error)}") from None
    if not bool(torch.isfinite(logits).all()):
        raise _refused(version, "its weights give no numbers")
