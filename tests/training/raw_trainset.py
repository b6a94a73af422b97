"""A train set with raw rows beside it: real vocabularies, a real booster, encoded by features.encoding.

`trainset_factory` makes encoded rows only; exporting and scoring start from unencoded ones.
"""

from __future__ import annotations

import datetime
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost

from features import manifest as m
from features.encoding import Encoder
from training.export import export_folder
from training.models import build

TRAIN_DAY, GATE_DAY = datetime.date(2026, 1, 8), datetime.date(2026, 1, 10)
USERS, ANCHORS, TREES, CONTENT = 60, 30, 3, 4
DENSE = ("user_watch_ms_7d", "room_viewers")


@dataclass(frozen=True, kw_only=True)
class RawTrainset:
    """A train set at `root`, its gate day unencoded (`samples`) and as exported (`encoded`)."""

    root: str
    trainset: m.TrainSet
    samples: pa.Table
    encoded: pa.Table


def raw_samples(rows: int, day: datetime.date, seed: int) -> pa.Table:
    """Unencoded rows: keys beyond the vocabularies, nulls, ragged and empty sequences, absent content."""
    rng = np.random.default_rng(seed)
    user, anchor = rng.integers(0, USERS, rows), rng.integers(0, ANCHORS, rows)
    lengths = np.where(rng.random(rows) < 0.2, 0, rng.integers(0, 9, rows))
    heat = rng.gamma(2.0, 50.0, rows)
    entered = rng.random(rows) < 1 / (1 + np.exp(-(0.02 * (heat - 100) + 0.1 * (anchor % 7) - 0.3)))
    gift = entered & (rng.random(rows) < np.where(heat > 110, 0.4, 0.1))
    offsets = pa.array(np.r_[0, np.cumsum(lengths)].astype(np.int32))
    events = int(lengths.sum())
    content = [None if rng.random() < 0.1 else rng.normal(size=CONTENT).tolist() for _ in range(rows)]
    city = pa.array(np.array(["beijing", "chengdu", "wuhan"])[user % 3], mask=rng.random(rows) < 0.1)
    return pa.table(
        {
            "impression_id": pa.array(np.arange(rows) + 10**15 + seed * 10**9, pa.int64()),
            "user_id": pa.array(user + 10**14, pa.int64()),
            "anchor_id": pa.array(anchor, pa.int64()),
            "dt": pa.array([day] * rows, pa.date32()),
            "user_city": city,
            "hour": pa.array(rng.integers(0, 24, rows), pa.int32()),
            "position": pa.array(rng.integers(0, 12, rows), pa.int32()),
            "user_watch_ms_7d": pa.array(rng.integers(0, 10**6, rows), pa.int64()),
            "room_viewers": pa.array(heat, pa.float64()),
            "content": pa.array(content, pa.list_(pa.float32())),
            "watched_anchor": pa.ListArray.from_arrays(offsets, pa.array(rng.integers(0, ANCHORS + 3, events))),
            "watched_age_hours": pa.ListArray.from_arrays(offsets, pa.array(rng.gamma(1.0, 30.0, events))),
            "label_enter": pa.array(entered.astype(np.int32)),
            "mask_enter": pa.array(np.ones(rows, np.int32)),
            "label_gift": pa.array(gift.astype(np.int32)),
            "mask_gift": pa.array(entered.astype(np.int32)),
        }
    )


def write_raw_trainset(
    root: Path, *, gate_rows: int = 600, seed: int = 1, evicted: Mapping[str, Collection[object]] | None = None
) -> RawTrainset:
    """Fit the artefacts on raw rows, encode the gate day, and write all of it below `root`.

    Args:
        evicted: vocabulary → keys that are evicted on the gate day.
    """
    train = raw_samples(2000, TRAIN_DAY, seed)
    samples = raw_samples(gate_rows, GATE_DAY, seed + 1)
    _write_vocabulary(root, "user", pa.array(np.arange(0, USERS, 2) + 10**14))  # every other user is unknown
    _write_vocabulary(root, "anchor", pa.array(np.arange(ANCHORS)))
    _write_vocabulary(root, "city", pa.array(["beijing", "chengdu"]))
    for name, keys in (evicted or {}).items():
        evict(root, name, keys)
    (root / "booster.ubj").write_bytes(_fit_booster(train))
    trainset = _describe(train, samples)
    encoder = Encoder.load(trainset, str(root))
    encoded = encoder.encode(samples)
    (root / m.TRAINSET_FILE).write_text(trainset.model_dump_json())
    return RawTrainset(root=str(root), trainset=trainset, samples=samples, encoded=_written_and_read(root, encoded))


def publish(raw: RawTrainset, folder: Path, name: str) -> Path:
    """A small model of the train set, untrained, as a published folder."""
    model = build(name, raw.trainset, {"embedding_dim": 4, "hidden": [8]}, seed=1)
    export_folder(model, raw.trainset, raw.root, raw.samples, {"name": name}, folder)
    return folder


def evict(root: Path, name: str, keys: Collection[object]) -> None:
    """Evict keys of a vocabulary on the gate day."""
    path = root / "vocabularies" / f"{name}.parquet"
    table = pq.read_table(path)
    days = [GATE_DAY if key in keys else None for key in table["key"].to_pylist()]
    pq.write_table(table.append_column(m.EVICTED_ON, pa.array(days, pa.date32())), path)


def _write_vocabulary(root: Path, name: str, keys: pa.Array) -> None:
    path = root / "vocabularies" / f"{name}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    # the newest tenth is admitted on the gate day only, and the last key a day after it
    admitted = [TRAIN_DAY if i < 0.9 * len(keys) else GATE_DAY for i in range(len(keys))]
    admitted[-1] = GATE_DAY + datetime.timedelta(days=1)
    ids = np.arange(len(keys), dtype=np.int32) + m.FIRST_KEY_ID
    pq.write_table(pa.table({"key": keys, "id": ids, "admitted_on": pa.array(admitted, pa.date32())}), path)


def _fit_booster(train: pa.Table) -> bytes:
    rows = np.stack([train[name].cast(pa.float64()).to_numpy() for name in DENSE], axis=1).astype(np.float32)
    settings = {"max_depth": 3, "objective": "binary:logistic", "nthread": 1}
    booster = xgboost.train(settings, xgboost.DMatrix(rows, label=train["label_enter"].to_numpy()), TREES)
    return bytes(booster.save_raw("ubj"))


def _written_and_read(root: Path, encoded: pa.Table) -> pa.Table:
    """The rows of the export are in another order than the samples."""
    order = np.random.default_rng(0).permutation(len(encoded))
    pq.write_table(encoded.take(pa.array(order)), root / "gate.parquet")
    return pq.read_table(root / "gate.parquet")


def _describe(train: pa.Table, samples: pa.Table) -> m.TrainSet:
    leaves = [f"leaf_{tree}" for tree in range(TREES)]
    hours, ages = (6.0, 12.0, 18.0), (1.0, 24.0, 72.0)
    counts: dict[str, int] = {"user": USERS // 2 + 2, "anchor": ANCHORS + 2, "city": 4}
    vocabularies = [m.Vocabulary(name=n, num_ids=c, path=f"vocabularies/{n}.parquet") for n, c in counts.items()]
    vocabularies += [m.Vocabulary(name=name, num_ids=len(hours) + 3) for name in ("bucket:hour", "bucket:age")]
    vocabularies += [m.Vocabulary(name=leaf, num_ids=2 + 2**4) for leaf in leaves]
    numbers: dict[str, Any] = {
        "user_watch_ms_7d": m.DenseField(name="user_watch_ms_7d", transform="log1p", mean=12.0, std=2.0),
        "room_viewers": m.DenseField(name="room_viewers", mean=100.0, std=70.0),
    }

    def split(day: datetime.date, rows: pa.Table, path: str) -> m.Split:
        return m.Split(days=(str(day),), files=(m.DataFile(path=path, row_groups=(len(rows),)),), rows=len(rows))

    return m.TrainSet(
        name="raw",
        source="raw_trainset",
        seed=0,
        logical_shards=1,
        catalog_fingerprint="raw",
        vocabularies=tuple(vocabularies),
        categorical=(
            m.CategoricalField(name="user_id", vocabulary="user"),
            m.CategoricalField(name="anchor_id", vocabulary="anchor"),
            m.CategoricalField(name="user_city", vocabulary="city"),
            m.CategoricalField(name="hour", vocabulary="bucket:hour", kind="bucket", boundaries=hours),
            *(m.CategoricalField(name=leaf, vocabulary=leaf, kind="leaf") for leaf in leaves),
        ),
        dense=tuple(numbers.values()),
        vectors=(m.VectorField(name="content", dim=CONTENT),),
        sequences=(
            m.Sequence(
                name="watched",
                length=5,
                fields=(
                    m.SequenceField(name="anchor", vocabulary="anchor"),
                    m.SequenceField(name="age_hours", vocabulary="bucket:age", boundaries=ages),
                ),
            ),
        ),
        positions=12,
        leaves=m.LeafModel(path="booster.ubj", digest="-", trees=TREES, features=DENSE, fit_days=(str(TRAIN_DAY),)),
        tasks=(
            m.Task(name="enter", space="impressions"),
            m.Task(name="gift", space="entered", parent="enter"),
        ),
        splits={"train": split(TRAIN_DAY, train, "train.parquet"), "gate": split(GATE_DAY, samples, "gate.parquet")},
        seen_until=str(TRAIN_DAY),
    )
