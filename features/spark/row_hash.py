"""Order-free sums over row hashes: what content digests are made of.

A 64-bit hash is summed as two unsigned halves of 32 bits each: both sums stay exact in 64 bits up to 2^31 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pyspark.sql import Column
from pyspark.sql import functions as F


def high_half(row_hash: Column) -> Column:
    """Upper 32 bits, unsigned."""
    return F.shiftrightunsigned(row_hash, 32)


def low_half(row_hash: Column) -> Column:
    """Lower 32 bits, unsigned."""
    return row_hash.bitwiseAND(F.lit(0xFFFFFFFF))


HALVES: Mapping[str, Callable[[Column], Column]] = {"high": high_half, "low": low_half}
"""Name of a half → the half of a hash."""
