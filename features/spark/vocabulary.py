"""Which keys get an id, since when, and which lose it.

An id is admitted on the day AFTER the day on which its key reached the minimum frequency: a row of day d
sees only ids that rows before d earned. Ids are numbered by (admitted_on, key), so fitting on more days
only appends. A key that no row of K days has had is evicted: it encodes as OOV and keeps its number, so that a later
fit, which sees it again, gives it its id back.

Steps, for all vocabularies in one pass over the samples:
  1. (vocabulary, key, day)                      one row per value of a row, keys as strings
  2. (vocabulary, key, day, rows)                counted
  3. (vocabulary, key, day, rows up to day)      running sum per key
  4. (vocabulary, key, admitted_on, evicted_on)  first day that reaches the minimum, plus one; last day that counts
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from features.manifest import EVICTED_ON, FIRST_KEY_ID
from features.schema import Catalog
from features.spec import DType, Feature, Ids


@dataclass(frozen=True, kw_only=True)
class Eviction:
    """On the day `on`, keys go that were admitted by then, and that no row of the `after_days` days before it had.

    `on` is the first train day: rows of that day and later, which the ids encode, have no say.
    """

    on: datetime.date
    after_days: int


def _members(catalog: Catalog) -> list[tuple[str, Feature]]:
    return [(f.encoding.vocabulary, f) for f in catalog.features if isinstance(f.encoding, Ids)]


def admissions(samples: DataFrame, catalog: Catalog, eviction: Eviction | None = None) -> DataFrame:
    """Samples of the fit and train days → [vocabulary string, key string, admitted_on date, evicted_on date or null].

    Nulls and a feature's default are not keys: they encode as OOV.
    """
    entries = [_entry(vocabulary, feature) for vocabulary, feature in _members(catalog)]
    frequencies = F.create_map(*[F.lit(x) for pair in catalog.vocabularies().items() for x in pair])
    counted = (
        samples.select("dt", F.explode(F.array(*entries)).alias("entry"))
        .where(F.col("entry.key").isNotNull())
        .groupBy(F.col("entry.vocabulary").alias("vocabulary"), F.col("entry.key").alias("key"), "dt")
        .agg(F.count(F.lit(1)).alias("rows"))
    )
    until = Window.partitionBy("vocabulary", "key").orderBy("dt").rowsBetween(Window.unboundedPreceding, 0)
    return (
        counted.withColumn("so_far", F.sum("rows").over(until))
        .where(F.col("so_far") >= frequencies[F.col("vocabulary")])
        .groupBy("vocabulary", "key")
        .agg(F.date_add(F.min("dt"), 1).alias("admitted_on"), _evicted_on(eviction).alias(EVICTED_ON))
    )


def _entry(vocabulary: str, feature: Feature) -> Column:
    value = F.col(feature.name)
    key = F.when(value != F.lit(feature.default), value.cast("string"))
    return F.struct(F.lit(vocabulary).alias("vocabulary"), key.alias("key"))


def _evicted_on(eviction: Eviction | None) -> Column:
    """Over the days on which a key has its frequency. An id admitted by `on` has one before `on`, others have none."""
    if eviction is None:
        return F.max(F.lit(None).cast("date"))
    seen_on = F.max(F.when(F.col("dt") < F.lit(eviction.on), F.col("dt")))
    return F.when(seen_on < F.lit(eviction.on - datetime.timedelta(days=eviction.after_days)), F.lit(eviction.on))


def number(admitted: pa.Table, catalog: Catalog) -> Mapping[str, pa.Table]:
    """[vocabulary, key, admitted_on, evicted_on] → per vocabulary the same with ids.

    Runs on the driver: a vocabulary is as large as the embedding table it indexes.

    Returns:
        Vocabulary → [key int64 or string, id int32, admitted_on date32, evicted_on date32 or null].
    """
    integers = {vocabulary for vocabulary, feature in _members(catalog) if feature.dtype is DType.BIGINT}
    tables = {}
    for vocabulary in catalog.vocabularies():
        chosen = admitted.filter(pa.compute.equal(admitted["vocabulary"], vocabulary))
        key = chosen["key"].cast(pa.int64() if vocabulary in integers else pa.string())
        days = {name: chosen[name].cast(pa.date32()) for name in ("admitted_on", EVICTED_ON)}
        ordered = pa.table({"key": key, **days}).sort_by([("admitted_on", "ascending"), ("key", "ascending")])
        ids = pa.array(range(FIRST_KEY_ID, FIRST_KEY_ID + len(ordered)), type=pa.int32())
        tables[vocabulary] = ordered.add_column(1, "id", ids)
    return tables


def ids_in_use(vocabulary: DataFrame) -> DataFrame:
    """A vocabulary's file → (key, id) of the keys that are not evicted; files of earlier versions evict none."""
    kept = vocabulary.where(F.col(EVICTED_ON).isNull()) if EVICTED_ON in vocabulary.columns else vocabulary
    return kept.select("key", "id")
