"""What the data side hands to the training side: one frozen description of one train set.

`pipeline.export` writes it as `trainset.json` in the folder of the train set; `training` reads it and
nothing else. Every path in it is relative to that folder (features.paths), except `Split.sample_files`, which are URLs.

Ids. Every categorical value is an int32 id inside its vocabulary: 0 is padding (sequences, absent),
1 is OOV, known keys start at 2. Vocabularies share one embedding table; the row of id i of vocabulary v
is `offsets()[v] + i`.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from features.paths import Name, RelativePath

FORMAT_VERSION: Literal[1] = 1
TRAINSET_FILE = "trainset.json"

PADDING_ID = 0
OOV_ID = 1
FIRST_KEY_ID = 2

EVICTED_ON = "evicted_on"  # column of a vocabulary's file: the day from which a key encodes as OOV; null: never

ROW_ID_COLUMN = "row_id"  # int64: the impression_id
GROUP_COLUMN = "group"  # int64: the user_id, the group of GAUC
POSITION_COLUMN = "position"  # int32: display position, known in training only

Space = Literal["impressions", "entered"]
SplitName = Literal["train", "valid", "gate", "test"]


def categorical_column(name: str) -> str:
    """int32, one id per row."""
    return f"c__{name}"


def dense_column(name: str) -> str:
    """float32, one normalised number per row."""
    return f"d__{name}"


def vector_column(name: str) -> str:
    """list<float32> of a fixed dim per row; all zeros when the row has none."""
    return f"v__{name}"


def sequence_column(sequence: str, field: str) -> str:
    """list<int32> of the sequence's fixed length, newest FIRST, padded with 0 at the end."""
    return f"s__{sequence}__{field}"


def label_column(task: str) -> str:
    """float32, 0 or 1 (0 where masked)."""
    return f"y__{task}"


def mask_column(task: str) -> str:
    """float32, the row's weight in this task's loss and metrics; 0 = masked."""
    return f"m__{task}"


class Frozen(BaseModel):
    """Immutable, and closed: an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Vocabulary(Frozen):
    """A space of ids. `path` is None when the ids follow from a rule (buckets, leaves, a hash if `hashed`).

    An evicted key encodes as OOV, and keeps its number and its row: `num_ids` counts it.
    """

    name: str
    num_ids: int = Field(ge=FIRST_KEY_ID, description="rows in the embedding table, padding and OOV included")
    path: RelativePath | None = None
    digest: str | None = None
    hashed: bool = False
    evicted: int = Field(default=0, ge=0, description="keys that are evicted in this train set")


class CategoricalField(Frozen):
    """One id per row. `kind` says what it came from; leaves are categorical like any other.

    `boundaries` (bucket only): id = 2 + number of boundaries ≤ value. A leaf's `name` ends in its tree.
    """

    name: str
    vocabulary: str
    kind: Literal["id", "bucket", "leaf"] = "id"
    boundaries: tuple[float, ...] | None = None


class SequenceField(Frozen):
    """One attribute of the events of a sequence, e.g. their anchor."""

    name: str
    vocabulary: str
    boundaries: tuple[float, ...] | None = None


class Sequence(Frozen):
    """The last `length` events before the impression, newest first; all fields are aligned."""

    name: str
    length: int = Field(ge=1)
    fields: tuple[SequenceField, ...] = Field(min_length=1)


class DenseField(Frozen):
    """Encoded as (transform(x) − mean) / std."""

    name: str
    transform: Literal["identity", "log1p"] = "identity"
    mean: float = 0.0
    std: float = Field(default=1.0, gt=0)


class VectorField(Frozen):
    """A dense vector passed through from the raw tables, e.g. a content embedding."""

    name: str
    dim: int = Field(ge=1)


class LeafModel(Frozen):
    """The one booster of a train set: fitted on `fit_days`, all of them before the first train day."""

    path: RelativePath
    digest: str
    trees: int = Field(ge=1)
    features: tuple[str, ...]
    fit_days: tuple[str, ...]


class Task(Frozen):
    """A binary label on a space; outside of it the mask is 0. `parent` is what it is conditioned on."""

    name: str
    space: Space
    parent: str | None = None


class DataFile(Frozen):
    """A Parquet file and the rows of each of its row groups, in order.

    `checksums` are `features.checksums` of the row groups and of the footer; none where nobody took them.
    """

    path: RelativePath
    row_groups: tuple[int, ...]
    checksums: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _a_checksum_per_piece(self) -> Self:
        if self.checksums and len(self.checksums) != len(self.row_groups) + 1:
            raise ValueError(f"{self.path}: {len(self.checksums)} checksums of {len(self.row_groups)} row groups")
        return self


class Split(Frozen):
    """One split. `dropped` counts rows that were exported nowhere, and is never hidden.

    `sample_files` are URLs of the same rows unencoded, for whoever has other artefacts (the champion). Of a train
    split `rows` counts the replayed rows too (`TrainSet.replayed`); days, sample files and labels are without them.
    """

    days: tuple[str, ...]
    files: tuple[DataFile, ...]
    rows: int = Field(ge=0)
    dropped: int = Field(default=0, ge=0)
    sample_files: tuple[str, ...] = ()
    positives: Mapping[str, int] = Field(default_factory=dict)
    judged: Mapping[str, int] = Field(default_factory=dict, description="unmasked rows per task")

    @model_validator(mode="after")
    def _rows_match_files(self) -> Self:
        listed = sum(itertools.chain.from_iterable(file.row_groups for file in self.files))
        if listed != self.rows:
            raise ValueError(f"split lists {listed} rows in its row groups but says rows={self.rows}")
        return self


class TrainSet(Frozen):
    """A train set: what it holds, how it was encoded, and from what."""

    format_version: Literal[1] = FORMAT_VERSION
    name: Name
    source: str
    seed: int
    logical_shards: int = Field(ge=1, description="S: row group i belongs to logical shard i mod S")
    catalog_fingerprint: str
    fingerprints: Mapping[str, str] = Field(
        default_factory=dict, description="feature, sequence or label → fingerprint of its declaration"
    )
    vocabularies: tuple[Vocabulary, ...]
    categorical: tuple[CategoricalField, ...]
    dense: tuple[DenseField, ...] = ()
    vectors: tuple[VectorField, ...] = ()
    sequences: tuple[Sequence, ...] = ()
    positions: int | None = Field(default=None, description="ids of the position column; None = no column")
    leaves: LeafModel | None = None
    tasks: tuple[Task, ...] = Field(min_length=1)
    left_out: Mapping[str, str] = Field(default_factory=dict, description="task left out → the reason")
    unjudged: Mapping[str, str] = Field(
        default_factory=dict, description="task that is trained on, but that this gate day cannot judge → the reason"
    )
    splits: Mapping[SplitName, Split]
    lineage: Mapping[str, str] = Field(default_factory=dict, description="input partition → content digest")
    seen_until: str = Field(description="the newest day that any fitted artefact has seen")
    vocabulary_from: str | None = Field(default=None, description="the first day whose keys were counted")
    trained_from: str | None = Field(
        default=None, description="the first train day of the model, or of those that it goes on from"
    )
    evict_after_days: int | None = Field(
        default=None,
        description="a key without a row on so many days before the first train day is evicted; None: none",
    )
    replayed: Mapping[str, int] = Field(
        default_factory=dict, description="earlier train day → rows of it that the train split has again"
    )
    row_id_from: str = Field(default="impression_id", description="sample column of ROW_ID_COLUMN")
    group_from: str = Field(default="user_id", description="sample column of GROUP_COLUMN")

    @model_validator(mode="after")
    def _references_resolve(self) -> Self:
        known = {vocabulary.name for vocabulary in self.vocabularies}
        used = {column.vocabulary for column in self.categorical}
        used |= {field.vocabulary for sequence in self.sequences for field in sequence.fields}
        if missing := sorted(used - known):
            raise ValueError(f"vocabularies not listed: {', '.join(missing)}")
        return self

    @property
    def first_trained(self) -> str:
        """`trained_from`; of an older manifest, which does not say so, the first day that is sure."""
        return self.trained_from or self.splits["train"].days[0]

    def num_ids(self, vocabulary: str) -> int:
        """Number of ids of a vocabulary, padding and OOV included."""
        return next(v.num_ids for v in self.vocabularies if v.name == vocabulary)

    def evicted(self) -> dict[str, int]:
        """Vocabulary → number of its evicted keys, of those that have some."""
        return {vocabulary.name: vocabulary.evicted for vocabulary in self.vocabularies if vocabulary.evicted}

    def offsets(self) -> dict[str, int]:
        """First row of each vocabulary in the shared embedding table."""
        sizes = [vocabulary.num_ids for vocabulary in self.vocabularies]
        starts = itertools.accumulate(sizes[:-1], initial=0)
        return {vocabulary.name: start for vocabulary, start in zip(self.vocabularies, starts, strict=True)}

    def table_rows(self) -> int:
        """Rows of the shared embedding table."""
        return sum(vocabulary.num_ids for vocabulary in self.vocabularies)
