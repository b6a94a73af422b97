"""CRC-32 of a Parquet file, piece by piece: a flipped bit is often a valid value to Parquet, and then nobody sees it.

The pieces are its row groups, each from its first byte to the next one's, and the footer behind them.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

FOOTER = "the footer"
CHUNK_BYTES = 2**22
_TAIL_BYTES = 8  # length of the footer, then "PAR1"


def checksums(source: pa.NativeFile) -> tuple[int, ...]:
    """Of every row group in order, then of the footer.

    Raises:
        OSError, pa.ArrowException: it cannot be read, or is no Parquet.
    """
    footer = _footer(source)
    return (*(_crc(source, *piece) for piece in _row_groups(source, footer)), _crc(source, footer, source.size()))


def damaged(source: pa.NativeFile, expected: Sequence[int]) -> Iterator[str]:
    """The pieces that are not as they were when `expected` was taken: "row group 3", "the footer".

    Raises:
        OSError: it cannot be read.
    """
    try:
        footer = _footer(source)
    except pa.ArrowInvalid:
        footer = -1
    # The footer says where the row groups are: without it nothing is known of them.
    if footer < 0 or _crc(source, footer, source.size()) != expected[-1]:
        yield FOOTER
        return
    for number, (piece, crc) in enumerate(zip(_row_groups(source, footer), expected[:-1], strict=True)):
        if _crc(source, *piece) != crc:
            yield f"row group {number}"


def _footer(source: pa.NativeFile) -> int:
    """Where the footer begins."""
    size: int = source.size()
    begin = size - _TAIL_BYTES
    length = int.from_bytes(source.read_at(4, begin), "little") if begin >= 0 else size
    if not 0 < length <= begin:
        raise pa.ArrowInvalid(f"{size} bytes end in a footer of {length}: no Parquet")
    return begin - length


def _row_groups(source: pa.NativeFile, footer: int) -> list[tuple[int, int]]:
    """First byte of each row group, and the one behind its last."""
    metadata = pq.read_metadata(source)
    firsts = [metadata.row_group(number).column(0) for number in range(metadata.num_row_groups)]
    begins = [c.dictionary_page_offset if c.has_dictionary_page else c.data_page_offset for c in firsts]
    return list(zip(begins, [*begins[1:], footer], strict=True))


def _crc(source: pa.NativeFile, begin: int, end: int) -> int:
    crc = 0
    for start in range(begin, end, CHUNK_BYTES):
        crc = zlib.crc32(source.read_at(min(CHUNK_BYTES, end - start), start), crc)
    return crc
