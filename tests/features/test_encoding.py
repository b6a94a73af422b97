"""The one encoder: against plain Python, value by value."""

from __future__ import annotations

import bisect
import datetime
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.encoding import Encoder, VocabularyIndex, bucketize, pad_sequences
from features.errors import DataError
from features.manifest import (
    CategoricalField,
    DenseField,
    Sequence,
    SequenceField,
    Task,
    TrainSet,
    VectorField,
    Vocabulary,
)

DAY = datetime.date(2025, 3, 10)
BIG = (1 << 60) + 1  # a float64 cannot tell it from its neighbour
BOUNDS = (1.0, 5.0)

TRAINSET = TrainSet(
    name="t",
    source="test",
    seed=1,
    logical_shards=1,
    catalog_fingerprint="x",
    vocabularies=(
        Vocabulary(name="anchor", num_ids=5, path="vocabularies/anchor.parquet"),
        Vocabulary(name="bucket:age", num_ids=5),
        Vocabulary(name="bucket:seq", num_ids=5),
    ),
    categorical=(
        CategoricalField(name="anchor_id", vocabulary="anchor"),
        CategoricalField(name="age", vocabulary="bucket:age", kind="bucket", boundaries=BOUNDS),
    ),
    dense=(DenseField(name="coins", transform="log1p", mean=1.0, std=2.0),),
    vectors=(VectorField(name="content", dim=2),),
    sequences=(
        Sequence(
            name="watched",
            length=3,
            fields=(
                SequenceField(name="anchor", vocabulary="anchor"),
                SequenceField(name="time", vocabulary="bucket:seq", boundaries=BOUNDS),
            ),
        ),
    ),
    positions=4,
    tasks=(Task(name="enter", space="impressions"),),
    splits={},
    seen_until="2025-03-09",
)
KEYS = pa.table(
    {
        "key": pa.array([BIG, 7, BIG - 1], type=pa.int64()),
        "id": pa.array([2, 3, 4], type=pa.int32()),
        "admitted_on": pa.array([datetime.date(2025, 3, 9), DAY, datetime.date(2025, 3, 11)]),
    }
)


def rows(**columns: object) -> pa.Table:
    count = 3
    values: dict[str, object] = {
        "impression_id": [1, 2, 3],
        "user_id": [10, 20, 30],
        "dt": [DAY] * count,
        "anchor_id": [BIG, 7, BIG - 1],
        "age": [0, 1, 9],
        "coins": [0, 10, -5],
        "content": [[1.0, 2.0], None, [1.0]],
        "watched_anchor": [[BIG, 8, 7, BIG], [], None],
        "watched_time": [[0, 1, 5, 9], [], None],
        "position": [0, 3, 99],
        "label_enter": [1, 0, 0],
        "mask_enter": [1, 1, 0],
    }
    types = {"content": pa.list_(pa.float32()), "watched_anchor": pa.list_(pa.int64()), "anchor_id": pa.int64()}
    types["watched_time"] = pa.list_(pa.int64())
    return pa.table({name: pa.array(value, type=types.get(name)) for name, value in (values | columns).items()})


@pytest.fixture
def encoder() -> Encoder:
    return Encoder(TRAINSET, {"anchor": VocabularyIndex.from_table(KEYS)})


def test_ids_are_exact_and_admitted_by_the_day_of_the_row(encoder: Encoder) -> None:
    assert encoder.encode(rows())["c__anchor_id"].to_pylist() == [2, 3, 1]


def test_a_later_day_admits_more_and_no_day_admits_all(encoder: Encoder) -> None:
    later = encoder.encode(rows(), day=datetime.date(2025, 3, 11))
    serving = encoder.encode(rows().drop_columns(["dt"]))
    assert later["c__anchor_id"].to_pylist() == serving["c__anchor_id"].to_pylist() == [2, 3, 4]
    earlier = encoder.encode(rows(), day=datetime.date(2025, 3, 8))
    assert earlier["c__anchor_id"].to_pylist() == [1, 1, 1]


def test_sequences_are_cut_padded_and_admitted(encoder: Encoder) -> None:
    encoded = encoder.encode(rows())
    assert encoded["s__watched__anchor"].to_pylist() == [[2, 1, 3], [0, 0, 0], [0, 0, 0]]
    assert encoded["s__watched__time"].to_pylist() == [[2, 3, 4], [0, 0, 0], [0, 0, 0]]


def test_numbers_vectors_position_and_labels(encoder: Encoder) -> None:
    encoded = encoder.encode(rows())
    expected = [(math.log1p(max(x, 0)) - 1.0) / 2.0 for x in (0, 10, -5)]
    assert encoded["d__coins"].to_pylist() == pytest.approx(expected, abs=1e-7)
    assert encoded["v__content"].to_pylist() == [[1.0, 2.0], [0.0, 0.0], [0.0, 0.0]]
    assert encoded["position"].to_pylist() == [0, 3, 3]
    assert encoded["y__enter"].to_pylist() == [1.0, 0.0, 0.0]
    assert encoded["m__enter"].to_pylist() == [1.0, 1.0, 0.0]


def test_slices_and_batches_encode_alike(encoder: Encoder) -> None:
    whole = encoder.encode(rows())
    parts = [encoder.encode(rows().slice(at, 1).to_batches()[0]) for at in range(3)]
    assert pa.concat_tables(parts).equals(whole.combine_chunks()) or pa.concat_tables(parts).to_pydict() == (
        whole.to_pydict()
    )


def test_every_missing_column_is_named(encoder: Encoder) -> None:
    with pytest.raises(DataError, match=r"missing \(2\); e.g. anchor_id, coins"):
        encoder.encode(rows().drop_columns(["coins", "anchor_id"]))


@given(
    values=st.lists(st.one_of(st.none(), st.floats(-1e6, 1e6)), min_size=1),
    bounds=st.lists(st.floats(-1e5, 1e5), min_size=1, max_size=6, unique=True).map(sorted),
)
def test_buckets_against_bisect(values: list[float | None], bounds: list[float]) -> None:
    found = bucketize(pa.array(values, type=pa.float64()), tuple(bounds))
    assert found.tolist() == [1 if v is None else 2 + bisect.bisect_right(bounds, v) for v in values]


@given(st.lists(st.lists(st.integers(1, 99), max_size=8), min_size=1), st.integers(1, 5))
def test_padding_against_python(lists: list[list[int]], length: int) -> None:
    flat = np.array([value for row in lists for value in row], dtype=np.int32)
    padded = pad_sequences(flat, np.array([len(row) for row in lists], dtype=np.int64), length)
    assert padded.tolist() == [(row + [0] * length)[:length] for row in lists]


@given(st.lists(st.text(max_size=3), unique=True, max_size=20), st.lists(st.text(max_size=3), min_size=1))
def test_string_vocabularies_against_a_dictionary(keys: list[str], values: list[str]) -> None:
    ids = {key: 2 + place for place, key in enumerate(keys)}
    table = pa.table(
        {
            "key": pa.array(keys, type=pa.string()),
            "id": pa.array(list(ids.values()), type=pa.int32()),
            "admitted_on": pa.array([DAY] * len(keys), type=pa.date32()),
        }
    )
    days = np.full(len(values), (DAY - datetime.date(1970, 1, 1)).days, dtype=np.int32)
    found = VocabularyIndex.from_table(table).encode(pa.array(values, type=pa.string()), days)
    assert found.tolist() == [ids.get(value, 1) for value in values]


def test_an_evicted_key_is_oov_from_its_day_on_and_keeps_its_id_before() -> None:
    evicted = KEYS.append_column("evicted_on", pa.array([DAY, None, None], type=pa.date32()))
    encoder = Encoder(TRAINSET, {"anchor": VocabularyIndex.from_table(evicted)})
    day_before = DAY - datetime.timedelta(days=1)
    assert encoder.encode(rows())["c__anchor_id"].to_pylist() == [1, 3, 1]
    assert encoder.encode(rows(), day=day_before)["c__anchor_id"].to_pylist() == [2, 1, 1]
    assert encoder.encode(rows().drop_columns(["dt"]))["c__anchor_id"].to_pylist() == [1, 3, 4]
    assert encoder.encode(rows())["s__watched__anchor"].to_pylist()[0] == [1, 1, 3]
    assert encoder.ids(rows(), "anchor_id").tolist() == [1, 3, 1]


@settings(deadline=None)
@given(
    known=st.dictionaries(
        st.integers(0, 9), st.tuples(st.integers(0, 20), st.one_of(st.none(), st.integers(1, 20))), max_size=10
    ),
    asked=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 25)), min_size=1),
)
def test_admission_and_eviction_against_a_dictionary(
    known: dict[int, tuple[int, int | None]], asked: list[tuple[int, int]]
) -> None:
    """Days as numbers since 1970; a key that is evicted before it is admitted is never known."""
    days_of = [pa.array(column, type=pa.int32()).cast(pa.date32()) for column in zip(*known.values(), strict=True)]
    admitted, evicted = days_of or [pa.array([], type=pa.date32())] * 2
    ids = pa.array(range(2, 2 + len(known)), type=pa.int32())
    keys = pa.array(known, type=pa.int64())
    table = pa.table({"key": keys, "id": ids, "admitted_on": admitted, "evicted_on": evicted})
    days = np.array([day for _, day in asked], dtype=np.int32)
    found = VocabularyIndex.from_table(table).encode(pa.array([key for key, _ in asked], type=pa.int64()), days)

    def wanted(key: int, day: int) -> int:
        since, until = known.get(key, (99, None))
        return 2 + list(known).index(key) if since <= day and (until is None or day < until) else 1

    assert found.tolist() == [wanted(key, day) for key, day in asked]
