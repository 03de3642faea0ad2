"""Rows to Parquet, a column at a time: what is nested is offsets and values, never row objects.

Memory holds one row group. Where a group ends depends on its rows alone, so the same rows give the
same bytes.
"""

from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROW_GROUP_BYTES: Final = 4 * 2**20
"""Bytes, before compression, after which a row group is written: large enough for zstd, small
enough that a reader who wants some rows reads little."""

COMPRESSION_LEVEL: Final = 1
"""Of zstd: 3 took half again as long for 3 % less, on ids and log-probabilities."""

PLAIN_BYTES: Final = 8
"""Bytes that a number is taken for."""

Build = Callable[[Sequence[Any]], pa.Array]


class Column(NamedTuple):
    """One column."""

    name: str
    type: pa.DataType
    build: Build
    size: Callable[[Any], int] | None = None
    """Bytes of one value; None for `PLAIN_BYTES`."""


def _listed(value_type: pa.DataType, dtype: Any) -> Build:
    """Arrays of one dimension, laid end to end."""

    def build(values: Sequence[Any]) -> pa.Array:
        offsets = np.zeros(len(values) + 1, np.int32)
        np.cumsum([len(each) for each in values], out=offsets[1:])
        flat = np.concatenate(values) if values else np.zeros(0, dtype)
        if flat.dtype != dtype:
            flat = flat.astype(dtype)
        return pa.ListArray.from_arrays(
            pa.array(offsets), pa.array(flat, value_type), type=pa.list_(value_type)
        )

    return build


def _plain(type_: pa.DataType) -> Build:
    return lambda values: pa.array(values, type_)


def texts(name: str) -> Column:
    """A text, or none."""
    return Column(name, pa.string(), _plain(pa.string()), lambda each: len(each or ""))


def numbers(name: str, type_: pa.DataType) -> Column:
    """A number or a truth value, or none."""
    return Column(name, type_, _plain(type_))


def ids(name: str) -> Column:
    """An array of token ids."""
    build = _listed(pa.int32(), np.int32)
    return Column(name, pa.list_(pa.int32()), build, lambda each: 4 * len(each))


def floats(name: str) -> Column:
    """An array of numbers of 32 bits."""
    build = _listed(pa.float32(), np.float32)
    return Column(name, pa.list_(pa.float32()), build, lambda each: 4 * len(each))


def masks(name: str) -> Column:
    """An array of zeros and ones."""
    build = _listed(pa.uint8(), np.uint8)
    return Column(name, pa.list_(pa.uint8()), build, len)


def nested(name: str, type_: pa.DataType, size: Callable[[Any], int]) -> Column:
    """Objects of Python, for columns that are small."""
    return Column(name, type_, _plain(type_), size)


class Columns:
    """A Parquet file that is written.

    Args:
        file: Where to.
        columns: In the order of the values of a row.
        metadata: Of the schema, for readers that look for it.
        group_bytes: See `ROW_GROUP_BYTES`.
    """

    def __init__(
        self,
        file: BinaryIO,
        columns: Sequence[Column],
        metadata: dict[str, str] | None = None,
        group_bytes: int = ROW_GROUP_BYTES,
    ) -> None:
        self.columns = tuple(columns)
        self.rows = self.bytes = 0
        self._limit = group_bytes
        schema = pa.schema([(each.name, each.type) for each in columns])
        self.schema = schema.with_metadata(metadata) if metadata else schema
        plain = [each.name for each in columns if pa.types.is_string(each.type)]
        self._writer = pq.ParquetWriter(
            file,
            self.schema,
            compression="zstd",
            compression_level=COMPRESSION_LEVEL,
            use_dictionary=plain,
            write_statistics=plain,
        )
        self._waiting: list[Sequence[Any]] = []
        self._sizes = [(place, each.size) for place, each in enumerate(columns) if each.size]
        self._fixed = PLAIN_BYTES * (len(columns) - len(self._sizes))
        self._size = 0

    def add(self, row: Sequence[Any]) -> None:
        """One row, a value for each column."""
        size = self._fixed
        for place, measure in self._sizes:
            size += measure(row[place])
        self._waiting.append(row)
        self.rows += 1
        self.bytes += size
        self._size += size
        if self._size >= self._limit:
            self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        values = zip(*self._waiting, strict=True)
        arrays = [column.build(each) for column, each in zip(self.columns, values, strict=True)]
        self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self.schema))
        self._waiting = []
        self._size = 0

    def close(self) -> None:
        """Write what waits, and the end of the file."""
        self._flush()
        self._writer.close()
