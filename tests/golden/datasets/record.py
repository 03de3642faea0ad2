"""Record the hashes of the data sets that a fixed set of runs gives.

``python -m tests.golden.datasets.record`` writes them anew. Parquet depends on the library that
writes it, so the hash of its rows is recorded, too.
"""

import asyncio
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any, Final

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq

from tests.datasets import Runs, fixed
from trainer.datasets.build import build
from trainer.datasets.formats import MODULES, module
from trainer.datasets.manifest import Manifest
from trainer.datasets.spec import Kind, Spec

GOLDEN: Final = Path(__file__).with_name("hashes.json")

KINDS: Final[tuple[Kind, ...]] = ("sft", "rl", "preference")

TOKENS: Final = "sft/trl/tokens"
"""Of rows that a tokenizer made."""

CASES: Final[dict[str, Spec]] = {
    **{
        f"{kind}/{name}": Spec(kind=kind, format=name)
        for kind in KINDS
        for name in MODULES
        if kind in module(Spec(kind="sft", format=name)).KINDS
    },
    TOKENS: Spec(kind="sft", format="trl"),
    "sft/trl/chat": Spec(kind="sft", format="trl", layout="chat"),
}

BYTES: Final = 259
"""Tokens of a vocabulary that knows bytes and what controls a chat: nothing in it is learned."""


def made(name: str, folder: Path) -> tuple[Manifest, Path]:
    """A case's data set, and its one file of rows."""
    from tests.models import tokenizer
    from trainer.datasets.chat import Chat

    chat = Chat(tokenizer(size=BYTES)) if name == TOKENS else None
    building = build(Runs(*fixed()), folder, CASES[name], chat=chat, podium="test")
    found = asyncio.run(building).manifest
    (part,) = found.parts
    return found, folder / part.data.name


def content(path: Path) -> str:
    """Hash of what a file holds: of Parquet its rows, whoever wrote it."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        data = msgspec.json.encode(pq.read_table(path).to_pylist())
    return sha256(data).hexdigest()


def main() -> None:
    """Write the file."""
    sets: dict[str, Any] = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            found, path = made(name, Path(temporary))
            sets[name] = {
                "rows": found.rows,
                "content": content(path),
                "sha256": found.parts[0].data.sha256,
            }
    text = msgspec.json.encode({"pyarrow": pa.__version__, "sets": sets})
    GOLDEN.write_bytes(msgspec.json.format(text, indent=2) + b"\n")


if __name__ == "__main__":
    main()
