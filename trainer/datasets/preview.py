"""Rows as a person reads them: what is context, what is trained, and how much it counts.

Every format but ATIF's trajectories comes down to the same few things: spans of text, each with
who said it and whether it is in the loss. Rows are read one at a time.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from protocol.errors import InvalidData, NotFound, Usage
from replay.disk import raise_fault
from trainer.datasets import manifest
from trainer.datasets.chat import Chat
from trainer.datasets.formats.prime_rl import TrainingSample

Loss: TypeAlias = Literal["trained", "context", "left out", "better", "worse"]
"""What becomes of a span. ``left out``: a reply that is context, since it was a mistake."""

BATCH_ROWS: Final = 16
"""Rows that are read from Parquet at a time: a preview shows few."""

MAX_FILE_BYTES: Final = 2**30
"""Bytes of a file of msgpack that are read: it can't be read in pieces."""

_STATUS: Final = re.compile(r'"?status"?[:=] ?"(OK|PARSE_ERR|EXEC_ERR|TIMEOUT)"')


class Span(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A piece of a row."""

    role: str
    loss: Loss
    text: str
    tokens: int = 0
    """How many, where that is known."""
    statuses: tuple[str, ...] = ()
    """Of the calls whose results it shows."""


class Shown(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A row."""

    row: str
    about: dict[str, Any]
    """What is known of it: reward, advantage, version, and so on."""
    spans: tuple[Span, ...]


def files(path: Path) -> list[Path]:
    """The files of rows of a data set, or the one file that is named.

    Raises:
        NotFound: There is nothing there.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise NotFound(f"there is no {path}", hint="name a data set's folder, or one of its files")
    return [path / part.data.name for part in manifest.must_read(path).parts]


def preview(
    paths: Sequence[Path], *, chat: Chat | None = None, skip: int = 0, limit: int = 3, run: str = ""
) -> list[Shown]:
    """Some rows.

    Args:
        paths: Of the files.
        chat: What spells tokens; None where only messages are shown.
        skip: Rows that are passed over.
        limit: Rows at most.
        run: Only rows of runs whose ids begin so.

    Raises:
        InvalidData: A file is none of a data set, or damaged.
        Denied, DiskFault: It can't be read.
        Usage: It has tokens and no messages, and there is no tokenizer.
    """
    every = (row for path in paths for row in _rows(path))
    wanted = (row for row in every if _run_of(row).startswith(run)) if run else every
    return [
        _shown(row, place, chat) for place, row in enumerate(islice(wanted, skip, skip + limit))
    ]


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    try:
        match path.suffix:
            case ".parquet":
                for batch in pq.ParquetFile(path).iter_batches(BATCH_ROWS):
                    yield from batch.to_pylist()
            case ".jsonl":
                with path.open("rb") as lines:
                    for line in lines:
                        yield msgspec.json.decode(line)
            case ".msgpack":
                if path.stat().st_size > MAX_FILE_BYTES:
                    raise Usage(f"{path} is too large to be shown", hint="show a smaller part")
                for each in msgspec.msgpack.decode(path.read_bytes(), type=list[TrainingSample]):
                    yield msgspec.structs.asdict(each)
            case other:
                raise InvalidData(
                    f"{path} is no file of a data set: {other or 'no suffix'}",
                    hint="name one that ends with .parquet, .jsonl or .msgpack",
                )
    except (OSError, msgspec.MsgspecError, pa.ArrowException) as error:
        raise_fault(path, error)
        raise InvalidData(
            f"{path} can't be read: {error}", hint="podium dataset show FOLDER compares all hashes"
        ) from None


def _run_of(row: dict[str, Any]) -> str:
    for name in ("run_id", "chosen_run_id", "trajectory_id", "id"):
        if row.get(name):
            return str(row[name])
    return ""


# ------------------------------------------------------------------------------------------- shapes


def _shown(row: dict[str, Any], place: int, chat: Chat | None) -> Shown:
    name = str(row.get("row_id") or _run_of(row) or place)
    if "chosen" in row or "preferred_output" in row:
        return Shown(row=name, about=_about(row), spans=_pair(row))
    if "traces" in row:
        return Shown(row=name, about=_about(row["traces"][0]), spans=_nodes(row["traces"][0]))
    if "steps" in row and "schema_version" in row:
        return Shown(row=name, about=_about(row["final_metrics"]), spans=_steps(row))
    ids = row.get("input_ids") or row.get("token_ids") or ()
    if len(ids) and chat is not None:
        return Shown(row=name, about=_about(row), spans=_tokens(row, ids, chat))
    if row.get("messages") is not None or "prompt" in row:
        return Shown(row=name, about=_about(row), spans=_talk(row))
    if not len(ids):
        raise InvalidData(
            f"row {name} has neither messages nor tokens: {', '.join(sorted(row))}",
            hint="is it a file of a data set?",
        )
    raise Usage(
        f"row {name} has {len(ids)} tokens and no messages",
        hint="say how they are spelled: --tokenizer FOLDER",
    )


_TOLD: Final = (
    "view",
    "recovery",
    "reward",
    "advantage",
    "policy_version",
    "temperature",
    "turn",
    "turns",
    "reward_chosen",
    "reward_rejected",
    "rewards",
)


def _about(row: dict[str, Any]) -> dict[str, Any]:
    about = {name: row[name] for name in _TOLD if _says(row.get(name))}
    if ids := row.get("input_ids") or row.get("token_ids"):
        about["tokens"] = len(ids)
        about["trained"] = int(np.count_nonzero(_mask(row)))
    return about


def _says(value: Any) -> bool:
    """Whether a value is worth being told; 0 is."""
    return value is not None and value is not False and value not in ("", [])


def _mask(row: dict[str, Any]) -> Any:
    """Which tokens are in the loss, shape ``[n]``."""
    if row.get("labels") is not None:
        return np.array(row["labels"]) >= 0
    for name in ("loss_mask", "mask"):
        if row.get(name) is not None:
            return np.array(row[name]) > 0
    return np.zeros(len(row.get("input_ids") or row["token_ids"]), bool)


def _tokens(row: dict[str, Any], ids: Sequence[int], chat: Chat) -> tuple[Span, ...]:
    mask = _mask(row)
    edges = [0, *(np.flatnonzero(np.diff(mask)) + 1).tolist(), len(ids)]
    return tuple(
        Span(
            role="assistant" if mask[begin] else "",
            loss="trained" if mask[begin] else "context",
            text=(text := chat.decode(ids[begin:end])),
            tokens=end - begin,
            statuses=() if mask[begin] else _statuses(text),
        )
        for begin, end in pairwise(edges)
    )


def _objects(value: Any) -> list[dict[str, Any]]:
    """Messages, however a format keeps them."""
    if isinstance(value, str):
        value = msgspec.json.decode(value)
    return [msgspec.json.decode(each) if isinstance(each, str) else each for each in value or ()]


def _talk(row: dict[str, Any]) -> tuple[Span, ...]:
    if row.get("messages") is None:
        context = [_span(each, "context") for each in _objects(row["prompt"])]
        return (*context, *(_span(each, "trained") for each in _objects(row.get("completion"))))
    messages = _objects(row["messages"])
    weights = row.get("message_weights")
    found = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            loss: Loss = "context"
        elif weights is not None:
            loss = "trained" if weights[place] else "left out"
        else:
            loss = "trained" if message.get("weight", 1) else "left out"
        found.append(_span(message, loss))
    return tuple(found)


def _pair(row: dict[str, Any]) -> tuple[Span, ...]:
    given = row.get("input")
    prompt = given["messages"] if given else row["prompt"]
    chosen = row["chosen"] if "chosen" in row else row["preferred_output"]
    rejected = row["rejected"] if "rejected" in row else row["non_preferred_output"]
    return (
        *(_span(each, "context") for each in _objects(prompt)),
        *(_span(each, "better") for each in _objects(chosen)),
        *(_span(each, "worse") for each in _objects(rejected)),
    )


def _nodes(trace: dict[str, Any]) -> tuple[Span, ...]:
    """Of each branch its masks say what is trained; of one without tokens it is all replies."""
    roots: list[int] = []
    for place, node in enumerate(trace["nodes"]):
        roots.append(place if node["parent"] is None else roots[node["parent"]])
    masked = {root for root, node in zip(roots, trace["nodes"], strict=True) if "mask" in node}
    found = []
    for root, node in zip(roots, trace["nodes"], strict=True):
        trained = any(node.get("mask", ())) if root in masked else node["sampled"]
        loss: Loss = "trained" if trained else "left out" if node["sampled"] else "context"
        span = _span(node["message"], loss)
        size = len(node.get("token_ids", ()))
        found.append(msgspec.structs.replace(span, tokens=size))
    return tuple(found)


def _steps(trajectory: dict[str, Any]) -> tuple[Span, ...]:
    """A trajectory says nothing of a loss: all of it is context."""
    found = []
    for step in trajectory["steps"]:
        calls = [
            {"function": {"name": each["function_name"], "arguments": each["arguments"]}}
            for each in step.get("tool_calls", ())
        ]
        role = {"agent": "assistant"}.get(step["source"], step["source"])
        said = {"role": role, "content": step["message"], "tool_calls": calls}
        found.append(_span(said, "context"))
        for result in step.get("observation", {}).get("results", ()):
            about = result.get("extra", {}).get("podium", {})
            text = str(result.get("content", ""))
            status = (about["status"],) if about.get("status") else ()
            found.append(Span(role="tool", loss="context", text=text, statuses=status))
    return tuple(found)


def _span(message: dict[str, Any], loss: Loss) -> Span:
    parts = [message.get("content") or ""]
    for call in message.get("tool_calls") or ():
        function = call.get("function", call)
        arguments = function["arguments"]
        if not isinstance(arguments, str):
            arguments = msgspec.json.encode(arguments).decode()
        parts.append(f"{function['name']}({arguments})")
    text = "\n".join(filter(None, parts))
    told = message["role"] != "assistant" and message["role"] != "system"
    return Span(
        role=message["role"], loss=loss, text=text, statuses=_statuses(text) if told else ()
    )


def _statuses(text: str) -> tuple[str, ...]:
    """Of the results in a text, as the dialects show them."""
    return tuple(_STATUS.findall(text))
