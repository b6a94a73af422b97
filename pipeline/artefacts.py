"""What a train set is encoded by: vocabularies, normaliser, booster; each blind to what it encodes."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from features import manifest as names
from features import storage
from features.encoding import flat_array, load_booster
from features.errors import DataError, Problem
from features.manifest import CategoricalField, DenseField, LeafModel, SequenceField, TrainSet, VectorField, Vocabulary
from features.schema import Catalog, bucket_count, bucket_vocabulary
from features.spark.leaves import BoosterParams, booster_features, fit_booster, leaf_id_count
from features.spark.normaliser import normalisers
from features.spark.vocabulary import Eviction, admissions, number
from features.spec import Buckets, Feature, Ids, Position, Vector
from pipeline.config import PipelineConf, TrainDays, TrainDaysConf
from pipeline.stages.names import SAMPLES

BOOSTER_FILE = "booster.ubj"
LEAF_PREFIX = "leaf"


@dataclass(frozen=True, kw_only=True)
class Artefacts:
    """Fitted artefacts, as the manifest describes them and as bytes and tables.

    `keys`: vocabulary → [key, id, admitted_on, evicted_on]. `vocabulary_from`: the first day counted.
    """

    vocabularies: tuple[Vocabulary, ...]
    categorical: tuple[CategoricalField, ...]
    dense: tuple[DenseField, ...]
    vectors: tuple[VectorField, ...]
    sequences: tuple[names.Sequence, ...]
    leaves: LeafModel
    keys: Mapping[str, pa.Table]
    booster: bytes
    vocabulary_from: datetime.date


def digest(content: bytes) -> str:
    """First 16 hex digits of SHA-256."""
    return hashlib.sha256(content).hexdigest()[:16]


def fit(
    samples: DataFrame,
    catalog: Catalog,
    conf: PipelineConf,
    days: TrainDays,
    lender: tuple[TrainSet, str] | None,
    *,
    warm: bool = False,
) -> Artefacts:
    """Fit on samples of the fit and train days.

    Args:
        lender: a train set with its folder whose booster and normaliser are kept; without one both are
            fitted on the fit days.
        warm: models of `lender` go on with these artefacts: its keys keep their numbers, and eviction is as of conf.

    Raises:
        DataError: warm, and the samples of the counted days no longer give a key the number that it had.
    """
    keys = number(_arrow(admissions(samples, catalog, eviction(days, conf.days) if warm else None)), catalog)
    if lender is not None and warm:
        _check_numbers(lender, keys)
    if lender is not None:
        trainset, root = lender
        assert trainset.leaves is not None
        booster = storage.read_bytes(f"{root}/{trainset.leaves.path}")
        dense, fit_days = trainset.dense, trainset.leaves.fit_days
    else:
        fit_rows = samples.where(F.col("dt").isin(list(days.fit)))
        booster = fit_booster(fit_rows, catalog, conf.tasks.main, _params(conf))
        dense, fit_days = normalisers(fit_rows, catalog), tuple(day.isoformat() for day in days.fit)
    leaf_ids = leaf_id_count(load_booster(booster))
    leaves = LeafModel(
        path=BOOSTER_FILE,
        digest=digest(booster),
        trees=conf.leaves.trees if lender is None else len(load_booster(booster).get_dump()),
        features=booster_features(catalog),
        fit_days=fit_days,
    )
    categorical = (*_categorical(catalog), *_leaf_fields(leaves.trees))
    return Artefacts(
        vocabularies=_vocabularies(catalog, keys, leaves.trees, leaf_ids),
        categorical=categorical,
        dense=dense,
        vectors=tuple(
            VectorField(name=f.name, dim=f.encoding.dim) for f in catalog.features if isinstance(f.encoding, Vector)
        ),
        sequences=_sequences(catalog),
        leaves=leaves,
        keys=keys,
        booster=booster,
        vocabulary_from=min((*days.fit, *days.train)),
    )


def eviction(days: TrainDays, conf: TrainDaysConf) -> Eviction | None:
    """Decided once per train set, by the days before its first train day."""
    if conf.evict_after_days is None:
        return None
    return Eviction(on=days.train[0], after_days=conf.evict_after_days)


def moved_keys(before: pa.Table, now: pa.Table) -> list[str]:
    """Keys of an earlier vocabulary that have another number, or none, in one that should continue it."""
    at = pc.index_in(before["key"], value_set=flat_array(now["key"]))
    is_same = pc.fill_null(pc.equal(pc.take(now["id"], at), before["id"]), fill_value=False)
    moved: list[str] = before["key"].filter(pc.invert(is_same)).cast(pa.string()).to_pylist()
    return moved


def _check_numbers(lender: tuple[TrainSet, str], keys: Mapping[str, pa.Table]) -> None:
    """A warm start copies rows of the embedding table by number."""
    trainset, root = lender
    problems = []
    for vocabulary in trainset.vocabularies:
        if vocabulary.path is None or vocabulary.name not in keys:  # which came or went, the warm start tells
            continue
        with storage.open_input(f"{root}/{vocabulary.path}") as source:
            moved = moved_keys(pq.read_table(source, columns=["key", "id"]), keys[vocabulary.name])
        if moved:
            what = (
                f"keys of {vocabulary.name} have not the numbers that {trainset.name} gave them: "
                "the samples of a counted day have changed, or the catalog"
            )
            remedy = "Train in full (limelight daily): each would be given the embedding row of another key"
            problems.append(Problem(table=SAMPLES, what=what, count=len(moved), examples=moved, remedy=remedy))
    if problems:
        raise DataError(problems)


def _arrow(frame: DataFrame) -> pa.Table:
    rows = frame.toPandas()
    kinds = {"vocabulary": pa.string(), "key": pa.string(), "admitted_on": pa.date32(), names.EVICTED_ON: pa.date32()}
    return pa.table({name: pa.array(rows[name], type=kind) for name, kind in kinds.items()})


def _params(conf: PipelineConf) -> BoosterParams:
    leaves = conf.leaves
    return BoosterParams(
        trees=leaves.trees,
        depth=leaves.depth,
        learning_rate=leaves.learning_rate,
        min_child_weight=leaves.min_child_weight,
        workers=leaves.workers,
        seed=conf.export.seed,
    )


def _categorical(catalog: Catalog) -> list[CategoricalField]:
    fields = []
    for feature in catalog.features:
        if isinstance(feature.encoding, Ids):
            fields.append(CategoricalField(name=feature.name, vocabulary=feature.encoding.vocabulary))
        elif isinstance(feature.encoding, Buckets):
            bounds = feature.encoding.boundaries
            vocabulary = bucket_vocabulary(feature.name)
            fields.append(CategoricalField(name=feature.name, vocabulary=vocabulary, kind="bucket", boundaries=bounds))
    return fields


def _leaf_fields(trees: int) -> Sequence[CategoricalField]:
    leaf_names = [f"{LEAF_PREFIX}_{tree}" for tree in range(trees)]
    return [CategoricalField(name=name, vocabulary=f"{LEAF_PREFIX}:{name}", kind="leaf") for name in leaf_names]


def _sequences(catalog: Catalog) -> tuple[names.Sequence, ...]:
    found = []
    for sequence in catalog.sequences:
        fields = []
        for field in sequence.fields:
            if isinstance(field.encoding, Ids):
                fields.append(SequenceField(name=field.name, vocabulary=field.encoding.vocabulary))
            else:
                vocabulary = bucket_vocabulary(f"{sequence.name}.{field.name}")
                bounds = field.encoding.boundaries
                fields.append(SequenceField(name=field.name, vocabulary=vocabulary, boundaries=bounds))
        found.append(names.Sequence(name=sequence.name, length=sequence.length, fields=tuple(fields)))
    return tuple(found)


def _vocabularies(catalog: Catalog, keys: Mapping[str, pa.Table], trees: int, leaf_ids: int) -> tuple[Vocabulary, ...]:
    fitted = [
        Vocabulary(
            name=name,
            num_ids=names.FIRST_KEY_ID + len(table),
            path=f"vocabularies/{name}.parquet",
            digest=digest(repr(table.to_pydict()).encode()),
            evicted=len(table) - table[names.EVICTED_ON].null_count,
        )
        for name, table in keys.items()
    ]
    buckets = [
        Vocabulary(name=bucket_vocabulary(feature.name), num_ids=bucket_count(feature.encoding))
        for feature in catalog.features
        if isinstance(feature.encoding, Buckets)
    ]
    sequence_buckets = [
        Vocabulary(name=bucket_vocabulary(f"{s.name}.{field.name}"), num_ids=bucket_count(field.encoding))
        for s in catalog.sequences
        for field in s.fields
        if isinstance(field.encoding, Buckets)
    ]
    leaves = [Vocabulary(name=f.vocabulary, num_ids=leaf_ids) for f in _leaf_fields(trees)]
    return (*fitted, *buckets, *sequence_buckets, *leaves)


def position_size(feature: Feature | None) -> int | None:
    """Ids of the position column, or None without one."""
    return feature.encoding.size if feature is not None and isinstance(feature.encoding, Position) else None
