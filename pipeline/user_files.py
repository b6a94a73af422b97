"""One user in one Parquet file: found, and taken out. Spark tasks call these, one file each."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features import storage

USER = "user_id"


def rows_of_user(url: str, column: str, user: int) -> int | None:
    """Rows of a Parquet file whose column is the user; 0 without such a column, None when it cannot be read.

    Row groups whose extremes exclude the user are not read.
    """
    try:
        with storage.open_input(url) as source:
            file = pq.ParquetFile(source)
            if column not in file.schema_arrow.names or not pa.types.is_integer(file.schema_arrow.field(column).type):
                return 0
            at = file.schema_arrow.names.index(column) if _is_flat(file) else None
            groups = [index for index in range(file.num_row_groups) if _may_hold(file, index, at, user)]
            if not groups:
                return 0
            return int(pc.sum(pc.equal(file.read_row_groups(groups, [column])[column], user)).as_py() or 0)
    except (pa.ArrowInvalid, OSError):
        return None


def _is_flat(file: pq.ParquetFile) -> bool:
    return bool(len(file.schema_arrow.names) == file.metadata.num_columns)


def _may_hold(file: pq.ParquetFile, group: int, column: int | None, user: int) -> bool:
    statistics = file.metadata.row_group(group).column(column).statistics if column is not None else None
    if statistics is None or not statistics.has_min_max:
        return True
    return bool(statistics.min <= user <= statistics.max)


def rewritten(url: str, target: str, user: int) -> tuple[int, int]:
    """Write a file without the user's rows, row group by row group in their order; rows and bytes of the new one."""
    sink = pa.BufferOutputStream()
    rows = 0
    with storage.open_input(url) as source:
        file = pq.ParquetFile(source)
        codec = file.metadata.row_group(0).column(0).compression if file.num_row_groups else "ZSTD"
        with pq.ParquetWriter(sink, file.schema_arrow, compression=codec) as writer:
            for group in range(file.num_row_groups):
                table = file.read_row_group(group)
                kept = table.filter(pc.fill_null(pc.not_equal(table[USER], user), True))
                rows += len(kept)
                writer.write_table(kept, row_group_size=max(1, len(kept)))
    content = sink.getvalue()
    storage.write_bytes(target, content.to_pybytes())
    return rows, len(content)
