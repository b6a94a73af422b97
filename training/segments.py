"""Which rows of the gate day are looked at apart: new keys, heavy users, each value of a column.

What a segment is follows from the unencoded samples and the champion alone, never from the candidate: a candidate
cannot move rows out of a segment that it does badly on. Segments overlap: an impression may be of a new anchor, shown
to a heavy user, in the category music.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.encoding import Encoder, flat_array
from features.manifest import OOV_ID
from training.gate_conf import SegmentRules

Rows = NDArray[np.bool_]

HEAVY_USERS = "heavy users"
REST, NULL = "(all others)", "(null)"


@dataclass(frozen=True, kw_only=True)
class Segments:
    """Parts of the gate day.

    Attributes:
        rows: name → [n], whether each row belongs to it.
        absent: what conf asks for and the day cannot tell → why; it stops.
    """

    rows: Mapping[str, Rows] = field(default_factory=dict)
    absent: Mapping[str, str] = field(default_factory=dict)


def segments_of(samples: pa.Table, reference: Encoder, rules: SegmentRules) -> Segments:
    """The segments of a gate day.

    - `new <field>`: rows whose value of the field is OOV by the reference's vocabulary on that day: never seen, seen
      too rarely to be admitted, or evicted.
    - `heavy users`: rows of the users with at least k impressions on the day, where k is the smallest number that at
      most `heavy_user_share` of the day's users reach.
    - `<column>=<value>`: rows with that value; of more than `max_values` values those with the most rows (by name where
      equal), and one segment for all others.

    Args:
        samples: unencoded rows, [n].
        reference: of the champion; of the candidate when there is no champion.
    """
    rows: dict[str, Rows] = {}
    absent: dict[str, str] = {}
    fields = {one.name for one in reference.trainset.categorical if one.kind == "id"}
    for name in rules.new_keys:
        if name in fields:
            rows[f"new {name}"] = reference.ids(samples, name) == OOV_ID
        else:
            absent[f"new {name}"] = f"{name} is not a field of ids of the train set"
    rows[HEAVY_USERS] = heavy_users(samples[reference.trainset.group_from].to_numpy(), rules.heavy_user_share)
    for column in rules.columns:
        if column in samples.column_names:
            rows |= by_value(column, samples[column], rules.max_values)
        else:
            absent[column] = "the samples have no such column"
    return Segments(rows=rows, absent=absent)


def heavy_users(group: NDArray[np.int64], share: float) -> Rows:
    """[n] user of each row → [n], whether that user is among the at most `share` of users with the most rows."""
    _, codes, counts = np.unique(group, return_inverse=True, return_counts=True)
    allowed = int(share * len(counts))
    falling = np.sort(counts)[::-1]
    # with more than `allowed` users at the boundary's count, none of that count is in
    least = falling[allowed] + 1 if allowed < len(falling) else 0
    return np.asarray(counts[codes] >= least, dtype=np.bool_)


def by_value(column: str, values: pa.ChunkedArray, most: int) -> dict[str, Rows]:
    """`<column>=<value>` → [n]; at most `most` values, and one segment for all others."""
    named = pc.fill_null(values.cast(pa.string()), NULL)
    counted = sorted(
        ((one["values"], one["counts"]) for one in pc.value_counts(flat_array(named)).to_pylist()),
        key=lambda pair: (-pair[1], pair[0]),
    )
    kept = [value for value, _ in counted[:most]]
    place = pc.fill_null(pc.index_in(named, value_set=pa.array(kept, pa.string())), len(kept)).to_numpy()
    return dict(_each(column, kept, place, has_rest=len(counted) > most))


def _each(column: str, kept: list[str], place: NDArray[np.int32], *, has_rest: bool) -> Iterator[tuple[str, Rows]]:
    for number, value in enumerate(kept):
        yield f"{column}={value}", np.asarray(place == number, dtype=np.bool_)
    if has_rest:
        yield f"{column}={REST}", np.asarray(place == len(kept), dtype=np.bool_)
