"""Which snapshot a day sees, and the features read from it."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import CatalogError, DataError, NotReadyError
from features.schema import Catalog, load_catalog
from features.spark.snapshots import SNAPSHOT_TABLES, choose_snapshots, snapshot_features
from features.spec import DType, Entity, Feature, Ids, Snapshot, SnapshotOp
from tests.features.random_logs import LogShape, many_logs, to_spark
from tests.features.spark.profile_rows import by_day_and_key
from tests.oracle import profiles as oracle

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

FIRST = LogShape().first_day
DAYS = [FIRST + dt.timedelta(days=offset) for offset in range(12)]

offsets = st.sets(st.integers(0, 30), min_size=1)


def day_of(offset: int) -> dt.date:
    return FIRST + dt.timedelta(days=offset)


@given(partitions=offsets, targets=offsets, max_age=st.integers(1, 31))
def test_the_newest_before_the_day_or_every_day_without_one(
    partitions: set[int], targets: set[int], max_age: int
) -> None:
    before = {target: max((p for p in partitions if p < target), default=None) for target in targets}
    bad = sorted(target for target, newest in before.items() if newest is None or target - newest > max_age)
    ready, days = [day_of(p) for p in partitions], [day_of(t) for t in targets]
    if not bad:
        chosen = choose_snapshots("users", ready, days=days, max_age_days=max_age)
        assert chosen == {day_of(t): day_of(newest) for t, newest in before.items() if newest is not None}
        return
    with pytest.raises(NotReadyError) as stopped:
        choose_snapshots("users", ready, days=days, max_age_days=max_age)
    assert [problem.day for problem in stopped.value.problems] == [day_of(t).isoformat() for t in bad]
    assert {problem.table for problem in stopped.value.problems} == {"users"}


def test_the_message_tells_none_from_too_old() -> None:
    with pytest.raises(NotReadyError) as stopped:
        choose_snapshots("anchors", [day_of(3)], days=[day_of(3), day_of(9)], max_age_days=5)
    none, old = str(stopped.value).splitlines()
    assert none.startswith(
        f"table=anchors day={day_of(3)}: no snapshot before it. Deliver a partition of {day_of(-2)} "
    )
    assert old.startswith(f"table=anchors day={day_of(9)}: newest snapshot is of {day_of(3)}, too old. Deliver ")
    assert none.endswith(f"to {day_of(2)}, or raise max_snapshot_age_days.")


@pytest.mark.spark
@pytest.mark.parametrize("entity", list(SNAPSHOT_TABLES))
def test_features_are_those_of_the_oracle(spark: SparkSession, entity: Entity) -> None:
    table, catalog = SNAPSHOT_TABLES[entity], load_catalog()
    logs = many_logs([5, 6, 7])
    chosen = choose_snapshots(table, set(logs[table]["dt"]), days=DAYS, max_age_days=10)
    raw = to_spark(spark, {table: logs[table]})[table]
    frame = snapshot_features(entity, catalog=catalog, snapshots=raw.repartition(7), chosen=chosen)
    features = [f for f in catalog.of_entity(entity) if isinstance(f.op, SnapshotOp)]
    expected = oracle.snapshots(entity, features, logs[table], chosen)
    found = by_day_and_key(frame, entity)
    assert found.keys() == expected.keys()
    assert found == expected
    assert [day for day, _ in found].count(DAYS[1]) > 0
    assert frame.columns == ["day", *entity.keys, *(feature.name for feature in features)]


@pytest.mark.spark
def test_a_date_that_is_not_before_the_day_is_unknown(spark: SparkSession) -> None:
    logs = many_logs([5])
    users = logs["users"][logs["users"]["dt"] == DAYS[0] - dt.timedelta(days=1)].copy()
    users["registered_on"] = DAYS[0] + dt.timedelta(days=1)
    frame = snapshot_features(
        Entity.USER,
        catalog=load_catalog(),
        snapshots=to_spark(spark, {"users": users})["users"],
        chosen={DAYS[0]: DAYS[0] - dt.timedelta(days=1)},
    )
    assert {row["user_registered_days"] for row in frame.collect()} == {-1}


@pytest.mark.spark
def test_every_absent_column_is_named(spark: SparkSession) -> None:
    users = to_spark(spark, {"users": many_logs([5])["users"]})["users"].drop("age", "registered_on")
    with pytest.raises(DataError) as stopped:
        snapshot_features(Entity.USER, catalog=load_catalog(), snapshots=users, chosen={})
    assert [problem.column for problem in stopped.value.problems] == ["age", "registered_on"]


@pytest.mark.spark
def test_entities_without_snapshots_are_refused(spark: SparkSession) -> None:
    users = to_spark(spark, {"users": many_logs([5])["users"]})["users"]
    level = Feature(
        name="level",
        entity=Entity.ANCHOR,
        op=Snapshot(column="level"),
        dtype=DType.STRING,
        encoding=Ids(vocabulary="level"),
        default="",
        doc="The anchor's level.",
    )
    catalog = Catalog(features=(level,), sequences=(), labels=())
    with pytest.raises(CatalogError, match="no snapshot feature of user"):
        snapshot_features(Entity.USER, catalog=catalog, snapshots=users, chosen={})
    with pytest.raises(CatalogError, match="room has no snapshots"):
        snapshot_features(Entity.ROOM, catalog=catalog, snapshots=users, chosen={})
