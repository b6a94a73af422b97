"""A small train set, really exported: Parquet with exact row groups, learnable labels, and its manifest.

The world behind it: users and anchors each have a taste in R^4; the logit of enter is their inner product
plus the anchor's heat plus a bias of the display position; the other tasks are drawn among the entered
rows from the same taste. So an id model, a sequence model and a dense model all have something to find.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features import manifest as m
from features import storage
from features.checksums import checksums

TASTE = 4
DEFAULT_TASKS = (
    m.Task(name="enter", space="impressions"),
    m.Task(name="watch", space="entered", parent="enter"),
    m.Task(name="gift", space="entered", parent="enter"),
)
BASE_LOGIT = {"enter": -0.5, "watch": 0.2, "gift": -1.0}

Array = NDArray[Any]
Columns = dict[str, Array]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How big the world is. `watched` is the length of the one sequence, `leaves` the trees of the booster."""

    users: int = 120
    anchors: int = 40
    categories: int = 6
    positions: int = 8
    watched: int = 6
    content_dim: int = 3
    leaves: int = 2
    leaf_ids: int = 8


def write_trainset(
    folder: Path,
    *,
    rows: int = 4096,
    valid_rows: int = 700,
    gate_rows: int = 701,
    seed: int = 0,
    shards: int = 16,
    group_rows: int | Sequence[int] = 64,
    files: int = 4,
    tasks: Sequence[m.Task] = DEFAULT_TASKS,
    sizes: Sizes | None = None,
    weights: bool = False,
) -> m.TrainSet:
    """Write train, valid and gate splits and `trainset.json` below `folder`; return the manifest.

    Args:
        rows, valid_rows, gate_rows: rows of each split; the last row group takes the remainder.
        shards: S, the logical shards of the manifest.
        group_rows: rows of a row group, or of one after the other, repeated; `files` share the row groups of a split
            in contiguous runs.
        tasks: the parents must come before their children.
        weights: give judged rows unequal weights instead of 1.
    """
    sizes = sizes or Sizes()
    rng = np.random.default_rng(seed)
    tastes = {"user": rng.normal(size=(sizes.users, TASTE)), "anchor": rng.normal(size=(sizes.anchors, TASTE))}
    splits: dict[m.SplitName, m.Split] = {}
    first_row = 1_000_000_000_000  # row ids above 2^32: they must survive as int64
    wanted: tuple[tuple[m.SplitName, int, str], ...] = (
        ("train", rows, "2026-01-08"),
        ("valid", valid_rows, "2026-01-09"),
        ("gate", gate_rows, "2026-01-10"),
    )
    for name, count, day in wanted:
        columns = _draw(rng, count, first_row, tastes, sizes, tasks, weights=weights)
        splits[name] = _write_split(folder, name, day, columns, group_rows=group_rows, files=files, tasks=tasks)
        first_row += count
    trainset = _describe(seed, shards, sizes, tasks, splits)
    (folder / m.TRAINSET_FILE).write_text(trainset.model_dump_json(indent=1))
    return trainset


def _draw(
    rng: np.random.Generator,
    rows: int,
    first_row: int,
    tastes: dict[str, Array],
    sizes: Sizes,
    tasks: Sequence[m.Task],
    *,
    weights: bool,
) -> Columns:
    """Columns of `rows` impressions: [rows] scalars, [rows, L] sequences, [rows, dim] vectors."""
    user = rng.integers(0, sizes.users, rows)
    anchor = np.minimum(rng.zipf(1.6, rows) - 1, sizes.anchors - 1)
    category = anchor % sizes.categories
    position = rng.integers(0, sizes.positions, rows)
    heat = rng.normal(size=rows)
    affinity = np.einsum("nt,nt->n", tastes["user"][user], tastes["anchor"][anchor])
    watched, ages = _draw_sequences(rng, user, tastes, sizes)
    columns: Columns = {
        m.ROW_ID_COLUMN: np.arange(first_row, first_row + rows),
        m.GROUP_COLUMN: user.astype(np.int64) + 10**15,
        m.POSITION_COLUMN: position.astype(np.int32),
        m.categorical_column("user_id"): _as_ids(rng, user, oov=0.02),
        m.categorical_column("anchor_id"): _as_ids(rng, anchor, oov=0.02),
        m.categorical_column("category"): _as_ids(rng, category, oov=0.0),
        m.dense_column("heat"): heat.astype(np.float32),
        m.dense_column("affinity"): (affinity / 2 + rng.normal(size=rows)).astype(np.float32),
        m.vector_column("content"): tastes["anchor"][anchor, : sizes.content_dim].astype(np.float32),
        m.sequence_column("watched", "anchor_id"): watched,
        m.sequence_column("watched", "age"): ages,
    }
    for tree in range(sizes.leaves):
        cut = np.digitize(heat + 0.3 * affinity + 0.5 * tree, np.linspace(-2, 2, sizes.leaf_ids - 1))
        columns[m.categorical_column(f"leaf_{tree}")] = (cut + m.FIRST_KEY_ID).astype(np.int32)
    logit = 0.8 * affinity + 0.7 * heat - 0.1 * position
    return columns | _draw_labels(rng, logit, tasks, weights=weights)


def _as_ids(rng: np.random.Generator, keys: Array, *, oov: float) -> Array:
    known = (keys + m.FIRST_KEY_ID).astype(np.int32)
    return np.where(rng.random(len(keys)) < oov, np.int32(m.OOV_ID), known)


def _draw_sequences(
    rng: np.random.Generator, user: Array, tastes: dict[str, Array], sizes: Sizes
) -> tuple[Array, Array]:
    """[rows, L] anchors that the user likes and their age buckets, ragged (some empty), padded with 0 at the end."""
    liked = np.argsort(-(tastes["user"] @ tastes["anchor"].T), axis=1)[:, : max(2, sizes.anchors // 4)]
    picks = rng.integers(0, liked.shape[1], (len(user), sizes.watched))
    lengths = rng.integers(0, sizes.watched + 1, len(user))
    present = np.arange(sizes.watched) < lengths[:, None]
    watched = np.where(present, liked[user[:, None], picks] + m.FIRST_KEY_ID, m.PADDING_ID)
    ages = np.where(present, np.sort(rng.integers(0, 6, picks.shape), axis=1) + m.FIRST_KEY_ID, m.PADDING_ID)
    return watched.astype(np.int32), ages.astype(np.int32)


def _draw_labels(rng: np.random.Generator, logit: Array, tasks: Sequence[m.Task], *, weights: bool) -> dict[str, Array]:
    """Labels and masks; a child is judged only where its parent is positive, and `watch` is undecided at times."""
    columns: dict[str, Array] = {}
    for task in tasks:
        positive = rng.random(len(logit)) < 1 / (1 + np.exp(-(logit + BASE_LOGIT.get(task.name, 0.0))))
        judged = np.ones(len(logit), bool)
        if task.parent is not None:
            judged &= columns[m.label_column(task.parent)] > 0
        if task.name == "watch":
            judged &= rng.random(len(logit)) > 0.1
        weight = rng.choice([1.0, 4.0], len(logit)) if weights else 1.0
        columns[m.label_column(task.name)] = (positive & judged).astype(np.float32)
        columns[m.mask_column(task.name)] = (judged * weight).astype(np.float32)
    return columns


def _write_split(
    folder: Path,
    name: m.SplitName,
    day: str,
    columns: Columns,
    *,
    group_rows: int | Sequence[int],
    files: int,
    tasks: Sequence[m.Task],
) -> m.Split:
    rows = len(columns[m.ROW_ID_COLUMN])
    sizes = itertools.cycle([group_rows] if isinstance(group_rows, int) else group_rows)
    ends = itertools.takewhile(lambda end: end < rows, itertools.accumulate(sizes))
    groups = [range(start, end) for start, end in itertools.pairwise([0, *ends, rows])]
    listed = []
    for number, members in enumerate(np.array_split(np.arange(len(groups)), min(files, len(groups)))):
        path = f"{name}/part-{number:05d}.parquet"
        (folder / name).mkdir(parents=True, exist_ok=True)
        write_row_groups(folder / path, columns, [groups[i] for i in members])
        with storage.open_input(str(folder / path)) as written:
            sums = checksums(written)
        listed.append(m.DataFile(path=path, row_groups=tuple(len(groups[i]) for i in members), checksums=sums))
    return m.Split(
        days=(day,),
        files=tuple(listed),
        rows=rows,
        positives={t.name: int(columns[m.label_column(t.name)].sum()) for t in tasks},
        judged={t.name: int((columns[m.mask_column(t.name)] > 0).sum()) for t in tasks},
    )


def write_row_groups(path: Path, columns: Columns, groups: Sequence[range]) -> None:
    """One Parquet file with exactly these row groups."""
    arrays = {name: _to_arrow(values) for name, values in columns.items()}
    table = pa.table(arrays)
    with pq.ParquetWriter(path, table.schema) as writer:
        for group in groups:
            writer.write_table(table.slice(group.start, len(group)), row_group_size=len(group))


def _to_arrow(values: Array) -> pa.Array:
    if values.ndim == 1:
        return pa.array(values)
    starts = pa.array(np.arange(0, values.size + 1, values.shape[1], dtype=np.int32))
    return pa.ListArray.from_arrays(starts, pa.array(values.ravel()))


def _describe(
    seed: int, shards: int, sizes: Sizes, tasks: Sequence[m.Task], splits: dict[m.SplitName, m.Split]
) -> m.TrainSet:
    keys = {"user_id": sizes.users, "anchor_id": sizes.anchors, "category": sizes.categories, "age": 6}
    leaves = [f"leaf_{tree}" for tree in range(sizes.leaves)]
    return m.TrainSet(
        name="factory",
        source="trainset_factory",
        seed=seed,
        logical_shards=shards,
        catalog_fingerprint="factory",
        vocabularies=(
            *(m.Vocabulary(name=name, num_ids=count + m.FIRST_KEY_ID) for name, count in keys.items()),
            *(m.Vocabulary(name=leaf, num_ids=sizes.leaf_ids + m.FIRST_KEY_ID) for leaf in leaves),
        ),
        categorical=(
            *(m.CategoricalField(name=name, vocabulary=name) for name in ("user_id", "anchor_id")),
            m.CategoricalField(name="category", vocabulary="category", kind="bucket"),
            *(m.CategoricalField(name=leaf, vocabulary=leaf, kind="leaf") for leaf in leaves),
        ),
        dense=(m.DenseField(name="heat"), m.DenseField(name="affinity")),
        vectors=(m.VectorField(name="content", dim=sizes.content_dim),),
        sequences=(
            m.Sequence(
                name="watched",
                length=sizes.watched,
                fields=(
                    m.SequenceField(name="anchor_id", vocabulary="anchor_id"),
                    m.SequenceField(name="age", vocabulary="age"),
                ),
            ),
        ),
        positions=sizes.positions,
        tasks=tuple(tasks),
        splits=splits,
        seen_until="2026-01-08",
    )
