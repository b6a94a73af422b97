"""Into which bins a column is cut, so that its distribution is counted in the pass of the write.

The cut follows from the declaration alone, never from data: two days of one column always have the same bins, and
their histograms add up. Bin 0 counts nulls, bin 1 what is no number (NaN, ±∞), the others values:

    Cut       one bin per bucket of the encoding; lengths of arrays
    Octaves   numbers of any size: negative, zero, then a bin per octave (or per half octave)
    Hashed    strings and ids: crc32 of the text
    Judged    labels: masked, negative, positive
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from features.schema import Catalog, label_name, mask_name
from features.spec import Buckets, Dense, DType, Feature

NULL_BIN, NON_FINITE_BIN, FIRST_BIN = 0, 1, 2
MASKED_BIN, NEGATIVE_BIN, POSITIVE_BIN = 2, 3, 4
HASH_BINS = 16
LENGTHS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0)
NUMBERS = re.compile(r"^(tinyint|smallint|int|bigint|float|double|decimal.*)$")
FRACTIONS = ("float", "double")


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Number of boundaries ≤ value; of an array, ≤ its length."""

    boundaries: tuple[float, ...]
    length: bool = False


@dataclass(frozen=True, kw_only=True)
class Octaves:
    """Below 0; then floor(per_octave × log2(shift + value)) from `first` on, clipped to `bins`.

    With shift 1 (for what is encoded as log1p) 0 falls into the first octave; with shift 0 it has a bin of its own.
    """

    shift: int
    per_octave: int
    first: int
    bins: int


@dataclass(frozen=True, kw_only=True)
class Hashed:
    """crc32 of the value as text, modulo `bins`."""

    bins: int = HASH_BINS


@dataclass(frozen=True, kw_only=True)
class Judged:
    """A label beside its mask column."""

    mask: str


Binning = Cut | Octaves | Hashed | Judged

COUNTS = Octaves(shift=1, per_octave=1, first=0, bins=41)  # to 2^41: a month in microseconds
RATIOS = Octaves(shift=0, per_octave=2, first=-20, bins=60)  # 2^-10 to 2^20


def binnings_of(schema: Sequence[tuple[str, str]], catalog: Catalog, keys: Sequence[str]) -> dict[str, Binning]:
    """Column → how it is cut: features by their encoding, labels by their mask, all else by its type.

    Keys of the table, masks, dates and timestamps have no distribution worth comparing.
    """
    features = {feature.name: feature for feature in catalog.features}
    masks = {label_name(label.name): mask_name(label.name) for label in catalog.labels}
    columns = dict(schema)
    found: dict[str, Binning] = {}
    for name, sql_type in schema:
        if name in keys or name in masks.values():
            continue
        if name in masks and masks[name] in columns:
            found[name] = Judged(mask=masks[name])
            continue
        binning = _of_type(sql_type) if name not in features else _of_feature(features[name])
        if binning is not None:
            found[name] = binning
    return found


def _of_feature(feature: Feature) -> Binning | None:
    match feature.encoding:
        case Buckets(boundaries=boundaries):
            return Cut(boundaries=tuple(float(boundary) for boundary in boundaries))
        case Dense(transform="identity"):
            return RATIOS
        case Dense():
            return COUNTS
    return Hashed() if feature.dtype in (DType.STRING, DType.BIGINT) else _of_type(feature.dtype.value)


def _of_type(sql_type: str) -> Binning | None:
    if sql_type.startswith("array"):
        return Cut(boundaries=LENGTHS, length=True)
    if sql_type in FRACTIONS:
        return RATIOS
    if NUMBERS.match(sql_type):
        return COUNTS
    return Hashed() if sql_type == "string" else None


def bin_count(binning: Binning) -> int:
    """Bins, those for nulls and non-numbers included."""
    match binning:
        case Cut(boundaries=boundaries):
            return FIRST_BIN + len(boundaries) + 1
        case Octaves(bins=bins, shift=shift):
            return FIRST_BIN + (2 if shift == 0 else 1) + bins
        case Hashed(bins=bins):
            return FIRST_BIN + bins
        case Judged():
            return POSITIVE_BIN + 1


def sampled_bin_sql(name: str, sql_type: str, binning: Binning, chosen: str) -> str:
    """The bin of rows where `chosen` holds, and of every null and every value that is no number; null elsewhere.

    Labels are not sampled: positives are rare.
    """
    if isinstance(binning, Judged):
        return bin_sql(name, sql_type, binning)
    odd = f" WHEN {_odd_sql(name)} THEN {NON_FINITE_BIN}" if sql_type in FRACTIONS else ""
    return f"CASE WHEN {chosen} THEN {bin_sql(name, sql_type, binning)} WHEN `{name}` IS NULL THEN {NULL_BIN}{odd} END"


def bin_sql(name: str, sql_type: str, binning: Binning) -> str:
    """The bin of a row as Spark SQL, an int. Text, as a column of many parts costs a call into the JVM for each."""
    match binning:
        case Judged(mask=mask):
            judged = f"CASE WHEN `{mask}` = 0 THEN {MASKED_BIN} WHEN `{name}` > 0 THEN {POSITIVE_BIN}"
            return f"IF(`{name}` IS NULL OR `{mask}` IS NULL, {NULL_BIN}, {judged} ELSE {NEGATIVE_BIN} END)"
        case Hashed(bins=bins):
            hashed = f"CAST(crc32(CAST(CAST(`{name}` AS STRING) AS BINARY)) % {bins} + {FIRST_BIN} AS INT)"
            return f"IF(`{name}` IS NULL, {NULL_BIN}, {hashed})"
        case Cut(length=True, boundaries=boundaries):
            return f"IF(`{name}` IS NULL, {NULL_BIN}, {_cut_sql(f'size(`{name}`)', boundaries)})"
        case Cut(boundaries=boundaries):
            return _numeric_sql(name, sql_type, _cut_sql(f"`{name}`", boundaries))
        case Octaves():
            return _numeric_sql(name, sql_type, _octave_sql(name, binning))


def _numeric_sql(name: str, sql_type: str, regular: str) -> str:
    odd = f" WHEN {_odd_sql(name)} THEN {NON_FINITE_BIN}" if sql_type in FRACTIONS else ""
    return f"CASE WHEN `{name}` IS NULL THEN {NULL_BIN}{odd} ELSE {regular} END"


def _odd_sql(name: str) -> str:
    return f"isnan(`{name}`) OR abs(`{name}`) = double('infinity')"


def _cut_sql(number: str, boundaries: Sequence[float]) -> str:
    first, last = boundaries[0], boundaries[-1]
    if list(boundaries) == [first + step for step in range(len(boundaries))] and first == int(first):
        clipped = f"least(greatest(floor({number}), {int(first) - 1}), {int(last)})"
        return f"CAST({clipped} - {int(first) - 1} + {FIRST_BIN} AS INT)"
    passed = "".join(f" + int({number} >= double('{boundary!r}'))" for boundary in boundaries)
    return f"({FIRST_BIN}{passed})"


def _octave_sql(name: str, octaves: Octaves) -> str:
    number = f"CAST(`{name}` AS DOUBLE)"
    first = FIRST_BIN + (2 if octaves.shift == 0 else 1)
    at = f"floor(log2({number} + {octaves.shift}) * {octaves.per_octave}) - ({octaves.first})"
    inside = f"CAST(least(greatest({at}, 0), {octaves.bins - 1}) + {first} AS INT)"
    zero = f" WHEN `{name}` = 0 THEN {FIRST_BIN + 1}" if octaves.shift == 0 else ""
    return f"CASE WHEN `{name}` < 0 THEN {FIRST_BIN}{zero} ELSE {inside} END"
