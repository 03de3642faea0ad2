"""Messages and blobs to Parquet and back, zstd within.

A segment's rows are sorted by run, and its row groups are small, so that one run is read without
reading the others. `where` is ``c`` for commits, ``i`` for the inbox; ``n`` and ``at`` are those of
a commit that can be read, else 0. What is read back is the original bytes.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from protocol.codec import decode_commit, digest
from protocol.errors import InvalidData, Usage
from replay.archive.folder import EXTRA
from replay.chain import Messages, Stored
from replay.collector import held_off
from replay.disk import is_fault

GROUP_BYTES: Final = 8 * 2**20
"""Bytes of messages in one row group: a read of a small run costs no more, and a large one's are
decompressed at the full speed of zstd."""

ZSTD_LEVEL: Final = 3
"""Of compression: higher ones cost twice the time for a few per cent."""


class Row(NamedTuple):
    """A message."""

    run: str
    where: str
    seq: int
    n: int
    at: int
    hash: str
    data: bytes


class Span(NamedTuple):
    """Row groups, the first and the last."""

    first: int
    last: int


def rows_of(run: str, messages: Messages) -> Iterator[Row]:
    """A run's messages as rows: its commits first."""
    for stored in messages.commits:
        n, at = _place(stored.data)
        yield Row(run, "c", stored.seq, n, at, digest(stored.data), stored.data)
    for stored in messages.inbox:
        yield Row(run, "i", stored.seq, 0, 0, digest(stored.data), stored.data)


def _place(data: bytes) -> tuple[int, int]:
    try:
        commit = decode_commit(data)
    except InvalidData:
        return 0, 0
    return commit.n, commit.at


def write_messages(path: Path, runs: Mapping[str, Messages]) -> tuple[dict[str, Span], int]:
    """Write a segment.

    Returns:
        The row groups in which each run stands, and the number of rows.
    """
    pa, pq = _pyarrow()
    schema = pa.schema(
        [
            pa.field("run", pa.string(), nullable=False),
            pa.field("where", pa.string(), nullable=False),
            pa.field("seq", pa.int64(), nullable=False),
            pa.field("n", pa.int64(), nullable=False),
            pa.field("at", pa.int64(), nullable=False),
            pa.field("hash", pa.string(), nullable=False),
            pa.field("bytes", pa.binary(), nullable=False),
        ]
    )
    spans: dict[str, Span] = {}
    group = rows = 0
    with pq.ParquetWriter(path, schema, **_options(["run", "where"])) as writer:
        for batch in _grouped(row for run in sorted(runs) for row in rows_of(run, runs[run])):
            columns = [list(column) for column in zip(*batch, strict=True)]
            writer.write_table(pa.table(columns, schema=schema), row_group_size=len(batch))
            for run in columns[0]:
                spans[run] = Span(spans[run].first if run in spans else group, group)
            group += 1
            rows += len(batch)
    return spans, rows


def _grouped(rows: Iterable[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.data)
        if size >= GROUP_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


class Group(NamedTuple):
    """A row group in memory."""

    runs: dict[str, Messages]
    size: int
    """Bytes of its messages."""


def read_group(file: BinaryIO, group: int) -> Group:
    """One row group's messages by run.

    Raises:
        InvalidData: It is no such file, or damaged.
        OSError: It can't be read, see `replay.disk.is_fault`.
    """
    columns = ["run", "where", "seq", "bytes"]
    runs, wheres, seq, data = (column.combine_chunks() for column in _read(file, group, columns))
    found: dict[str, Messages] = {}
    try:
        with held_off():
            seqs, datas = _numbers(seq), _bytes(data)
            for start, end, run, where in _stretches(runs, wheres):
                lists = found.setdefault(run, Messages([], []))
                into = lists.commits if where == "c" else lists.inbox
                into += map(Stored, seqs[start:end], datas[start:end])
    except (LookupError, TypeError, ValueError) as error:  # its columns are none of ours
        raise InvalidData(f"row group {group} can't be read: {error}") from None
    return Group(found, data.nbytes)


def _stretches(runs: Any, wheres: Any) -> Iterator[tuple[int, int, str, str]]:
    """Rows that stand together and are of the same run and place: start, end, run, place."""
    ends, places = _run_ends(runs), _run_ends(wheres)
    start = 0
    while ends:
        (end, run), (place_end, where) = ends[-1], places[-1]
        stop = min(end, place_end)
        yield start, stop, run, where
        if stop == end:
            ends.pop()
        if stop == place_end:
            places.pop()
        start = stop


def _run_ends(column: Any) -> list[tuple[int, str]]:
    """Where each stretch of equal values ends, the last one first."""
    import pyarrow.compute as pc

    encoded = pc.run_end_encode(column)
    return list(zip(encoded.run_ends.to_pylist(), encoded.values.to_pylist(), strict=True))[::-1]


def _numbers(column: Any) -> list[int]:
    """The values of an int64 column: its own buffer, ten times faster than one by one."""
    if not len(column):
        return []
    values = memoryview(column.buffers()[1]).cast("q")
    return values[column.offset : column.offset + len(column)].tolist()


def _bytes(column: Any) -> list[bytes]:
    """The values of a binary column, likewise."""
    if not len(column):
        return []
    _, places, data = column.buffers()
    offsets = memoryview(places).cast("i")[column.offset : column.offset + len(column) + 1]
    whole = data.to_pybytes() if data is not None else b""
    return [whole[start:end] for start, end in pairwise(offsets.tolist())]


def write_blobs(path: Path, blobs: Iterable[tuple[str, bytes]]) -> tuple[dict[str, int], int]:
    """Write a table of blobs, one row group for each. Returns the group of each, and the rows."""
    pa, pq = _pyarrow()
    schema = pa.schema(
        [
            pa.field("sha256", pa.string(), nullable=False),
            pa.field("size", pa.int64(), nullable=False),
            pa.field("bytes", pa.large_binary(), nullable=False),
        ]
    )
    groups: dict[str, int] = {}
    with pq.ParquetWriter(path, schema, **_options(False)) as writer:
        for sha, data in blobs:
            writer.write_table(pa.table([[sha], [len(data)], [data]], schema=schema))
            groups[sha] = len(groups)
    return groups, len(groups)


def read_blob(file: BinaryIO, group: int) -> bytes:
    """The one blob of a row group. Raises as `read_group`."""
    (column,) = _read(file, group, ["bytes"])
    found = column.to_pylist()
    if len(found) != 1 or not isinstance(found[0], bytes):
        raise InvalidData(f"row group {group} holds no blob")
    return found[0]


def _read(file: BinaryIO, group: int, columns: list[str]) -> Any:
    pa, pq = _pyarrow()
    try:
        whole = pq.ParquetFile(file, memory_map=False, page_checksum_verification=True)
        table = whole.read_row_group(group, columns=columns)
        return [table.column(name) for name in columns]
    except (pa.ArrowException, OSError, LookupError, ValueError) as error:
        if is_fault(error):
            raise
        raise InvalidData(f"row group {group} can't be read: {error}") from None


def _options(dictionaries: Any) -> dict[str, Any]:
    return {
        "compression": "zstd",
        "compression_level": ZSTD_LEVEL,
        "use_dictionary": dictionaries,
        "write_statistics": ["run"] if dictionaries else False,
        "write_page_checksum": True,
    }


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise Usage("reading or writing an archive needs pyarrow", hint=EXTRA) from None
    return pyarrow, pyarrow.parquet
