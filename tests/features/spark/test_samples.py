"""Samples against a join in pandas: names, types, defaults, one row per impression, arrival cutoff."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pyspark.sql import functions as F

from features.errors import CatalogError
from features.schema import Catalog, load_catalog
from features.spark.labels import CONVERSION_WITHOUT_ENTER
from features.spark.samples import sampled_impressions, samples
from features.spec import TILED_ENTITIES, DType, Entity, Feature, SnapshotOp, WindowOp
from tests.features.random_logs import RawLogs, many_logs, to_spark
from tests.oracle.events import Row, rows_of

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

DELAY_DAYS = 1
CATEGORIES = ("", "games", "music")
Key = tuple[Any, ...]
Values = dict[Key, Row]


class Parts:
    """Random parts of samples, as Spark frames and as dictionaries; profiles lack a third of their keys."""

    def __init__(self, spark: SparkSession, catalog: Catalog, logs: RawLogs) -> None:
        self.spark, self.catalog, self.rng = spark, catalog, np.random.default_rng(7)
        self.impressions = [row for row in rows_of(logs["impressions"]) if self._is_mature(row)]
        self.by_impression: dict[int, Row] = {}
        self.room = self._of_impressions({f.name: f.dtype.value for f in catalog.of_entity(Entity.ROOM)})
        self.sequences = self._of_impressions(self._columns("array<"))
        tasks = self._columns("int")
        self.labels = self._of_impressions({**tasks, CONVERSION_WITHOUT_ENTER: "int"})
        self.profiles, self.profile_values = self._as_of(WindowOp)
        self.snapshots, self.snapshot_values = self._as_of(SnapshotOp)

    @staticmethod
    def _is_mature(row: Row) -> bool:
        return bool(row["dt"] <= row["ts"].date() + dt.timedelta(days=DELAY_DAYS))

    def _columns(self, prefix: str) -> dict[str, str]:
        """Columns of the samples, beside the features, of an SQL type."""
        features = {feature.name for feature in self.catalog.features}
        return {
            column.name: column.sql_type
            for column in self.catalog.sample_columns()
            if column.sql_type.startswith(prefix) and column.name not in features
        }

    def _of_impressions(self, columns: dict[str, str]) -> DataFrame:
        rows = []
        for shown in self.impressions:
            values = {name: self._draw(name, sql_type) for name, sql_type in columns.items()}
            self.by_impression.setdefault(shown["impression_id"], {}).update(values)
            rows.append((shown["impression_id"], *values.values()))
        return self._frame(rows, {"impression_id": "bigint", **columns})

    def _as_of(self, kind: Any) -> tuple[dict[Entity, DataFrame], dict[Entity, Values]]:
        frames: dict[Entity, DataFrame] = {}
        values: dict[Entity, Values] = {}
        for entity in TILED_ENTITIES:
            features = [feature for feature in self.catalog.of_entity(entity) if isinstance(feature.op, kind)]
            if not features:
                continue
            keys = sorted({self.key(entity, shown) for shown in self.impressions if self.rng.random() < 0.67})
            found: Values = {key: {f.name: self._feature(f) for f in features} for key in keys}
            types = {"day": "date"} | {key: "string" if key == "category" else "bigint" for key in entity.keys}
            rows = [(*key, *row.values()) for key, row in found.items()]
            frames[entity] = self._frame(rows, types | {f.name: f.dtype.value for f in features})
            values[entity] = found
        return frames, values

    def key(self, entity: Entity, shown: Row) -> Key:
        known = shown | self.by_impression[shown["impression_id"]]
        return (shown["ts"].date(), *(known[key] for key in entity.keys))

    def _feature(self, feature: Feature) -> Any:
        return None if self.rng.random() < 0.1 else self._draw(feature.name, feature.dtype.value)

    def _draw(self, name: str, sql_type: str) -> Any:
        draws: dict[str, Callable[[], Any]] = {
            DType.STRING: lambda: str(self.rng.choice(CATEGORIES)),
            DType.DOUBLE: lambda: float(self.rng.random()),
            DType.BIGINT: lambda: int(self.rng.integers(2**60)),
            "int": lambda: int(self.rng.integers(2)),
        }
        if sql_type.startswith("array<"):
            element = sql_type.removeprefix("array<").removesuffix(">")
            draw = draws.get(element, lambda: float(np.float32(self.rng.random())))
            return [draw() for _ in range(int(self.rng.integers(4)))]
        return draws[sql_type]()

    def _frame(self, rows: list[Key], types: dict[str, str]) -> DataFrame:
        schema = ", ".join(f"{name} {sql_type}" for name, sql_type in types.items())
        return self.spark.createDataFrame(rows, schema)

    def expected(self, shown: Row) -> Row:
        """The sample of an impression, its ts as local text."""
        ts = shown["ts"]
        own = {"dt": ts.date(), "ts": ts.isoformat(" ", "microseconds"), "hour": ts.hour, "weekday": ts.weekday()}
        known: Row = shown | own | self.by_impression[shown["impression_id"]]
        for values in (self.profile_values, self.snapshot_values):
            for entity, found in values.items():
                known |= found.get(self.key(entity, shown), {})
        for feature in self.catalog.features:
            if known.get(feature.name) is None:
                known[feature.name] = feature.default
        return {column.name: known[column.name] for column in self.catalog.sample_columns()}


@pytest.fixture(scope="module")
def logs() -> RawLogs:
    return many_logs(range(70, 73))


@pytest.mark.spark
def test_samples_equal_a_join_by_hand(spark: SparkSession, logs: RawLogs) -> None:
    catalog = load_catalog()
    parts = Parts(spark, catalog, logs)
    raw = to_spark(spark, {"impressions": logs["impressions"]})["impressions"]
    found = samples(
        catalog,
        sampled_impressions(raw, label_delay_days=DELAY_DAYS),
        profiles=parts.profiles,
        snapshots=parts.snapshots,
        sequences=parts.sequences,
        room_state=parts.room,
        labels=parts.labels,
        counted=[CONVERSION_WITHOUT_ENTER],
    )
    *columns, flag = found.dtypes
    assert columns == [(column.name, column.sql_type) for column in catalog.sample_columns()]
    assert flag == (CONVERSION_WITHOUT_ENTER, "int")
    local = found.withColumn("ts", F.date_format("ts", "yyyy-MM-dd HH:mm:ss.SSSSSS")).collect()
    rows = {row["impression_id"]: row.asDict() for row in local}
    assert len(local) == len(rows) == len(parts.impressions) < len(logs["impressions"])
    for shown in parts.impressions:
        row = rows[shown["impression_id"]]
        assert row.pop(CONVERSION_WITHOUT_ENTER) == parts.by_impression[row["impression_id"]][CONVERSION_WITHOUT_ENTER]
        assert row == parts.expected(shown)


@pytest.mark.spark
def test_features_that_nothing_computes_are_named(spark: SparkSession, logs: RawLogs) -> None:
    catalog = load_catalog()
    parts = Parts(spark, catalog, {"impressions": logs["impressions"].head(3)})
    raw = to_spark(spark, {"impressions": logs["impressions"].head(3)})["impressions"]
    lacking = [f.name for f in catalog.of_entity(Entity.ANCHOR) if isinstance(f.op, SnapshotOp)]
    with pytest.raises(CatalogError, match=", ".join(lacking)):
        samples(
            catalog,
            raw,
            profiles=parts.profiles,
            snapshots={Entity.USER: parts.snapshots[Entity.USER]},
            sequences=parts.sequences,
            room_state=parts.room,
            labels=parts.labels,
        )
