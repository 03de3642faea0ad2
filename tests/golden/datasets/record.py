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
from trainer.datasets.spec import Format, Kind, Spec

GOLDEN: Final = Path(__file__).with_name("hashes.json")

KINDS: Final[tuple[Kind, ...]] = ("sft", "rl", "preference")

CASES: Final[list[tuple[Kind, Format]]] = [
    (kind, name)
    for kind in KINDS
    for name in MODULES
    if kind in module(Spec(kind="sft", format=name)).KINDS
]


def content(path: Path) -> str:
    """Hash of what a file holds: of Parquet its rows, whoever wrote it."""
    data = path.read_bytes()
    if path.suffix == ".parquet":
        data = msgspec.json.encode(pq.read_table(path).to_pylist())
    return sha256(data).hexdigest()


def main() -> None:
    """Write the file."""
    sets: dict[str, Any] = {}
    for kind, name in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            folder, spec = Path(temporary), Spec(kind=kind, format=name)
            found = asyncio.run(build(Runs(*fixed()), folder, spec, podium="test")).manifest
            (part,) = found.parts
            path = folder / part.data.name
            sets[f"{kind}/{name}"] = {
                "rows": found.rows,
                "content": content(path),
                "sha256": part.data.sha256,
            }
    text = msgspec.json.encode({"pyarrow": pa.__version__, "sets": sets})
    GOLDEN.write_bytes(msgspec.json.format(text, indent=2) + b"\n")


if __name__ == "__main__":
    main()
