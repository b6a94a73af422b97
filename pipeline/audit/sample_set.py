"""What is audited: rows with a key, a time, labels and features; ours with their lineage, or somebody's Parquet."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
from numpy.typing import NDArray

from features import storage
from features.errors import DataError, NotReadyError, Problem
from features.manifest import TrainSet
from features.schema import KEY_COLUMNS, Catalog, label_name, mask_name, sequence_name
from features.spec import TILED_ENTITIES, Entity, Ids, SnapshotOp
from pipeline.audit.duck import folder_columns, parquet
from pipeline.context import Context
from pipeline.stages.names import SAMPLES
from pipeline.trainset import load

DAY_PREFIX = f"{SAMPLES}/dt="


@dataclass(frozen=True, kw_only=True)
class LabelColumn:
    """A task: its 0/1 column, and the column that is 0 where it is masked (None: null is masked)."""

    name: str
    column: str
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class FeatureGroup:
    """Columns that one cutoff holds for.

    Attributes:
        happened: column with the time of the newest event behind the group's values, if the set has one.
        unordered: columns whose values have no order (ids, categories), besides those of type string.
    """

    name: str
    columns: tuple[str, ...]
    happened: str | None = None
    unordered: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Own:
    """Where our own sample sets come from; `trainset` with its folder when one was named."""

    context: Context
    days: tuple[datetime.date, ...]
    trainset: tuple[TrainSet, str] | None = None


@dataclass(frozen=True)
class SampleSet:
    """A set of rows; `own` is None for somebody's Parquet, of which nothing is known but the rows.

    `folders`: names of `name=value` folders that are columns too.
    """

    name: str
    urls: tuple[str, ...]
    key: str
    time: str
    labels: tuple[LabelColumn, ...]
    groups: tuple[FeatureGroup, ...]
    own: Own | None = None
    folders: tuple[str, ...] = ()

    @cached_property
    def dataset(self) -> ds.Dataset:
        """The rows as Arrow reads them."""
        return parquet(self.urls, self.folders)

    @cached_property
    def rows(self) -> int:
        """Number of rows, from the footers."""
        return int(self.dataset.count_rows())

    def column(self, name: str, chosen: NDArray[np.bool_] | None = None) -> pa.ChunkedArray:
        """One column of all rows, or of those chosen."""
        column = self.dataset.to_table(columns=[name]).column(0)
        return column if chosen is None else column.filter(pa.array(chosen))

    def key_hashes(self) -> NDArray[np.uint64]:
        """[rows] a hash of each row's key, the same in every run."""
        keys = self.column(self.key).to_pandas().to_numpy()
        hashes: NDArray[np.uint64] = pd.util.hash_array(keys)
        return hashes

    def chosen(self, most: int) -> NDArray[np.bool_] | None:
        """[rows] which rows are looked at, about `most` of them by the hash of their key; None for all."""
        if self.rows <= most:
            return None
        return self.key_hashes() < np.uint64(most / self.rows * 2**64)


def own_days(context: Context, days: Sequence[datetime.date]) -> SampleSet:
    """The committed samples of some days; every committed day when none is named.

    Raises:
        NotReadyError: a day was not computed, or none was.
    """
    if not days:
        found = context.warehouse.partitions(SAMPLES)
        days = [datetime.date.fromisoformat(partition.removeprefix("dt=")) for partition in found]
    if not days:
        remedy = "Run `limelight backfill` first, or name Parquet of your own with --samples"
        raise NotReadyError([Problem(table=SAMPLES, what="no day has samples", remedy=remedy)])
    span = f"{min(days)} to {max(days)}"
    return _own(context, f"samples of {span}", Own(context=context, days=tuple(sorted(days))))


def own_trainset(context: Context, name: str) -> SampleSet:
    """A train set: the samples of all days that its artefacts and splits were made of.

    Raises:
        NotReadyError: when there is none of that name, or its samples are gone.
    """
    trainset, root = load(context.warehouse, name)
    named = [key.removeprefix(DAY_PREFIX) for key in trainset.lineage if key.startswith(DAY_PREFIX)]
    days = tuple(sorted(datetime.date.fromisoformat(day) for day in named))
    return _own(context, f"train set {name}", Own(context=context, days=days, trainset=(trainset, root)))


def _own(context: Context, name: str, own: Own) -> SampleSet:
    manifests = context.warehouse.require(SAMPLES, own.days)
    return SampleSet(
        name=name,
        urls=tuple(url for manifest in manifests.values() for url in context.warehouse.file_urls(manifest)),
        key="impression_id",
        time="ts",
        labels=tuple(
            LabelColumn(name=label.name, column=label_name(label.name), mask=mask_name(label.name))
            for label in context.catalog.labels
        ),
        groups=own_groups(context.catalog),
        own=own,
    )


def profile_group(entity: Entity) -> str:
    """Name of the group of an entity's window features."""
    return f"profiles of {entity}"


def snapshot_group(entity: Entity) -> str:
    """Name of the group of an entity's snapshot features."""
    return f"snapshot of {entity}"


def sequence_group(sequence: str) -> str:
    """Name of the group of a sequence's fields."""
    return f"sequence {sequence}"


ROOM_GROUP = "room state"
SHOWN_GROUP = "impression"


def own_groups(catalog: Catalog) -> tuple[FeatureGroup, ...]:
    """The catalog's features by the cutoff that holds for them; keys of the samples are no features here."""
    members: dict[str, list[str]] = {}
    unordered = {feature.name for feature in catalog.features if isinstance(feature.encoding, Ids)}
    for entity in TILED_ENTITIES:
        members[profile_group(entity)] = [feature.name for feature in catalog.windows(entity)]
        is_snapshot = [feature.name for feature in catalog.of_entity(entity) if isinstance(feature.op, SnapshotOp)]
        members[snapshot_group(entity)] = is_snapshot
    members[ROOM_GROUP] = [feature.name for feature in catalog.of_entity(Entity.ROOM)]
    shown = catalog.of_entity(Entity.IMPRESSION)
    members[SHOWN_GROUP] = [feature.name for feature in shown if feature.name not in KEY_COLUMNS]
    for sequence in catalog.sequences:
        fields = [sequence_name(sequence.name, field.name) for field in sequence.fields]
        members[sequence_group(sequence.name)] = fields
        ids = [f for f in sequence.fields if isinstance(f.encoding, Ids)]
        unordered |= {sequence_name(sequence.name, field.name) for field in ids}
    return tuple(
        FeatureGroup(name=name, columns=tuple(columns), unordered=frozenset(unordered & set(columns)))
        for name, columns in members.items()
        if columns
    )


def foreign(
    folder: str, *, key: str, time: str, labels: Sequence[str], groups: Sequence[FeatureGroup] = ()
) -> SampleSet:
    """Somebody's Parquet; columns in no group of theirs form the group `features`.

    Raises:
        DataError: the folder has no Parquet, or lacks columns that were named: all of them at once.
    """
    entries = storage.list_files(folder, recursive=True)
    urls = tuple(entry.url for entry in entries if entry.name.endswith(".parquet"))
    if not urls:
        remedy = "Name a folder that has some, with --samples"
        raise DataError([Problem(table=folder, what="there is no Parquet file below it", remedy=remedy)])
    folders = tuple(folder_columns(urls[0], folder))
    found = [*parquet(urls).schema.names, *folders]
    named = [key, time, *labels, *(column for group in groups for column in group.columns)]
    named += [group.happened for group in groups if group.happened]
    missing = [name for name in dict.fromkeys(named) if name not in found]
    if missing:
        remedy = f"It has {', '.join(found)}"
        raise DataError(Problem(table=folder, column=name, what="column is absent", remedy=remedy) for name in missing)
    rest = tuple(name for name in found if name not in named)
    every = (*groups, FeatureGroup(name="features", columns=rest)) if rest else tuple(groups)
    columns = tuple(LabelColumn(name=label, column=label) for label in labels)
    return SampleSet(name=folder, urls=urls, key=key, time=time, labels=columns, groups=every, folders=folders)


def parse_group(text: str) -> FeatureGroup:
    """`name=column,column` or `name=column,column@time_column`: the last names when its newest event happened.

    Raises:
        ValueError: when the text is not of that form.
    """
    name, equals, rest = text.partition("=")
    listed, at, happened = rest.partition("@")
    columns = tuple(part.strip() for part in listed.split(",") if part.strip())
    if not (name and equals and columns) or (at and not happened):
        raise ValueError(f"{text!r} must look like name=column,column or name=column,column@time_column")
    return FeatureGroup(name=name.strip(), columns=columns, happened=happened.strip() or None)
