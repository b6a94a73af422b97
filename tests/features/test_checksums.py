"""Every bit of a Parquet file belongs to one piece, and a piece with another bit is named."""

from __future__ import annotations

import bisect
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.checksums import FOOTER, checksums, damaged

GROUPS, ROWS = 3, 200
BEGINS = 4  # "PAR1" at the front: no reader looks at it


def _file(compression: str) -> bytes:
    random = np.random.default_rng(5)
    sink = pa.BufferOutputStream()
    lists = pa.ListArray.from_arrays(np.arange(0, 3 * ROWS + 1, 3, dtype=np.int32), pa.array(np.arange(3 * ROWS)))
    table = pa.table({"x": random.normal(size=ROWS), "id": random.integers(0, 9, ROWS), "items": lists})
    with pq.ParquetWriter(sink, table.schema, compression=compression) as writer:
        for _ in range(GROUPS):
            writer.write_table(table, row_group_size=ROWS)
    return bytes(sink.getvalue())


FILES = {compression: _file(compression) for compression in ("zstd", "snappy", "none")}
SUMS = {name: checksums(pa.BufferReader(content)) for name, content in FILES.items()}
PIECES = [*(f"row group {number}" for number in range(GROUPS)), FOOTER]


def _begins(content: bytes) -> list[int]:
    """First byte of every piece; between its columns a row group has their metadata."""
    metadata = pq.read_metadata(pa.BufferReader(content))
    groups = [metadata.row_group(number) for number in range(GROUPS)]
    begins = [group.column(0).dictionary_page_offset for group in groups]
    begins.append(len(content) - 8 - int.from_bytes(content[-8:-4], "little"))
    for group, begin, end in zip(groups, begins[:-1], begins[1:], strict=True):
        for number in range(group.num_columns):
            column = group.column(number)
            start = column.dictionary_page_offset or column.data_page_offset
            assert begin <= start < start + column.total_compressed_size <= end
    assert begins[0] == BEGINS
    return begins


def _piece_of(content: bytes, place: int) -> str:
    return PIECES[bisect.bisect(_begins(content), place) - 1]


def test_a_file_as_it_was_written() -> None:
    for name, content in FILES.items():
        assert len(SUMS[name]) == GROUPS + 1
        assert list(damaged(pa.BufferReader(content), SUMS[name])) == []


@given(data=st.data(), name=st.sampled_from(sorted(FILES)), bit=st.integers(0, 7))
def test_any_flipped_bit_is_named_by_its_piece(data: Any, name: str, bit: int) -> None:
    content = bytearray(FILES[name])
    place = data.draw(st.integers(BEGINS, len(content) - 1))
    content[place] ^= 1 << bit
    found = list(damaged(pa.BufferReader(bytes(content)), SUMS[name]))
    assert found == [_piece_of(FILES[name], place)]


@given(kept=st.integers(0, len(FILES["zstd"]) - 1))
def test_a_file_that_is_cut_off_has_lost_its_footer(kept: int) -> None:
    assert list(damaged(pa.BufferReader(FILES["zstd"][:kept]), SUMS["zstd"])) == [FOOTER]


def test_two_row_groups_are_both_named() -> None:
    content = bytearray(FILES["none"])
    for begin in _begins(FILES["none"])[:2]:
        content[begin + 10] ^= 1
    assert list(damaged(pa.BufferReader(bytes(content)), SUMS["none"])) == PIECES[:2]


def test_what_is_no_parquet_has_no_checksums() -> None:
    for content in (b"", b"PAR1", b"no Parquet at all, but long enough for a tail"):
        with pytest.raises(pa.ArrowInvalid, match="no Parquet"):
            checksums(pa.BufferReader(content))
