"""Which days are stale after a correction, why, and that exactly those are rebuilt."""

from __future__ import annotations

import datetime
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pipeline.context
from pipeline.manifests import PartitionManifest
from pipeline.plan import PLAN, stage
from pipeline.stages.names import TRAINSETS
from pipeline.stale import Kind, StalePlan, find_stale, in_lines, rebuild
from pipeline.tables import Warehouse
from tests.small_world import SAMPLE_DAYS, context_of, digests, raw_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

FIRST, SECOND = SAMPLE_DAYS
DAY = datetime.timedelta(days=1)
CHANGED_DAY = datetime.date(2025, 3, 3)


@pytest.fixture
def copy(world: Path, tmp_path: Path) -> Path:
    """The computed world, to be changed; modification marks of the raw files are kept."""
    return Path(shutil.copytree(world, tmp_path / "copy"))


def names(plan: StalePlan, kind: Kind | None = None) -> set[str]:
    """`table/partition` of the listed partitions, or of those that have a reason of one kind."""
    return {
        entry.name for entry in plan.partitions if kind is None or any(reason.kind is kind for reason in entry.reasons)
    }


def generations(warehouse: Path) -> dict[str, int]:
    """`table/partition` → how often it was committed."""
    opened = Warehouse(str(warehouse))
    return {
        f"{table}/{partition}": len(opened.generations(table, partition))
        for table in opened.tables()
        for partition in opened.partitions(table)
    }


def changed(before: Mapping[str, object], after: Mapping[str, object]) -> set[str]:
    return {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}


def add_action(warehouse: Path, arrived: datetime.date, happened: datetime.timedelta) -> None:
    """One more gift of a user who is known, `happened` before the last action of the day it arrives on."""
    file = raw_folder(warehouse, "actions", arrived) / "part-0.parquet"
    actions = pq.read_table(file, partitioning=None)
    last = actions.sort_by([("ts", "descending")]).slice(0, 1).to_pylist()[0]
    row = {**last, "action_id": 10**9, "ts": last["ts"] - happened, "action": "gift", "value": 7.0}
    pq.write_table(pa.concat_tables([actions, pa.Table.from_pylist([row], schema=actions.schema)]), file)


def touch(file: Path) -> None:
    """The same content, replaced."""
    mark = file.stat().st_mtime_ns + 5_000_000_000
    os.utime(file, ns=(mark, mark))


def test_nothing_is_stale_after_a_run(spark: SparkSession, world: Path) -> None:
    plan = find_stale(context_of(spark, world))
    assert plan.partitions == ()
    assert plan.looked_at == len(digests(world)) > 20


def test_a_late_row_counts_from_the_day_after_it_arrived_and_changes_nothing_before(
    spark: SparkSession, copy: Path
) -> None:
    later = SECOND + DAY  # it arrives on SECOND, having happened on FIRST
    context = context_of(spark, copy)
    for name, days in (("tiles", [SECOND]), ("profiles", [later])):
        run = stage(name).run
        assert run is not None
        run(context, days)
    before = digests(copy)
    add_action(copy, arrived=SECOND, happened=DAY)
    plan = find_stale(context_of(spark, copy))
    listed = names(plan)
    rebuild(context_of(spark, copy), plan, lambda _: None)

    differing = changed(before, digests(copy))
    assert differing <= listed
    assert {name for name in differing if name.startswith("tiles")} >= {f"tiles_user/dt={SECOND}"}
    assert {name for name in differing if name.startswith("profiles_user/")} == {f"profiles_user/dt={later}"}
    as_of = [name for name in before if name.startswith(("tiles", "profiles")) and name[-10:] <= str(SECOND)]
    assert {name for name in as_of if before[name] != digests(copy)[name]} == {
        name for name in differing if name.startswith("tiles")
    }
    assert find_stale(context_of(spark, copy)).partitions == ()


def test_a_corrected_raw_day_is_followed_to_all_that_read_it_and_nothing_else_is_touched(
    spark: SparkSession, copy: Path
) -> None:
    before, counted = digests(copy), generations(copy)
    add_action(copy, arrived=CHANGED_DAY, happened=datetime.timedelta(0))
    plan = find_stale(context_of(spark, copy))
    # Air time is told by rooms, not by actions.
    tiles = {f"tiles_{entity}/dt={CHANGED_DAY}" for entity in ("user", "anchor", "user_category", "user_anchor")}
    assert tiles <= names(plan, Kind.CHANGED)
    assert {name for name in before if name.startswith(("profiles", "samples"))} <= names(plan)
    first = plan.partitions[0]
    assert (first.stage, first.day, first.reasons[0].what) == ("tiles", CHANGED_DAY, f"raw/actions/dt={CHANGED_DAY}")
    assert str(first.reasons[0]).count(" → ") == 1
    stages = [entry.stage for entry in plan.partitions]
    assert stages == sorted(stages, key=[found.name for found in PLAN].index)

    rebuild(context_of(spark, copy), plan, lambda _: None)
    assert changed(counted, generations(copy)) <= names(plan)
    assert tiles <= changed(counted, generations(copy))
    assert f"profiles_user/dt={SECOND}" in changed(before, digests(copy))
    assert find_stale(context_of(spark, copy)).partitions == ()


def test_what_waited_for_the_same_content_is_left_alone(spark: SparkSession, copy: Path) -> None:
    """A column that nothing reads has come: the files differ, the rows that count do not."""
    before, counted = digests(copy), generations(copy)
    file = raw_folder(copy, "impressions", CHANGED_DAY) / "part-0.parquet"
    impressions = pq.read_table(file, partitioning=None)
    pq.write_table(impressions.append_column("shop", pa.array(["x"] * len(impressions))), file)
    plan = find_stale(context_of(spark, copy))
    waiting = {entry.name for entry in plan.partitions if entry.only_waits}
    assert {name for name in before if name.startswith(("profiles", "samples"))} == waiting
    context = context_of(spark, copy)
    runs = rebuild(context, plan, lambda _: None)
    assert digests(copy) == before
    assert changed(counted, generations(copy)) == names(plan) - waiting
    assert runs[0].result.counts["impressions_unread_columns"] == 1
    assert context.raw.columns.all_unread(context.catalog) == {"impressions": {"shop": 1}}
    assert find_stale(context_of(spark, copy)).partitions == ()


def test_changed_conf_and_code_make_everything_stale(
    spark: SparkSession, world: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = find_stale(context_of(spark, world, "time.event_lag_seconds=31"))
    assert names(plan, Kind.CHANGED) == set(digests(world))
    assert {reason.what for entry in plan.partitions for reason in entry.reasons if reason.kind is Kind.CHANGED} == {
        "conf time"
    }
    monkeypatch.setattr(pipeline.context, "code_fingerprint", lambda: "other")
    lines = in_lines(find_stale(context_of(spark, world)))
    assert [line for line in lines if "code: " not in line.reasons[0]] == []
    assert len(lines) < len(digests(world)), "days in a row with equal reasons are one line"


def test_what_stale_samples_need_and_nobody_computed_is_listed(spark: SparkSession, copy: Path) -> None:
    shutil.rmtree(copy / "profiles_user")
    plan = find_stale(context_of(spark, copy))
    missing = [entry for entry in plan.partitions if entry.reasons[0].kind is Kind.MISSING]
    assert [entry.name for entry in missing] == [f"profiles_user/dt={day}" for day in SAMPLE_DAYS]
    assert str(missing[0].reasons[0]) == f"never computed; samples of {FIRST} need it"
    assert names(plan, Kind.CHANGED) == {f"samples/dt={day}" for day in SAMPLE_DAYS}


def test_a_raw_day_that_is_gone_is_not_passed_over(spark: SparkSession, copy: Path) -> None:
    first = raw_folder(copy, "impressions", datetime.date(2025, 2, 28))
    shutil.rmtree(first)
    plan = find_stale(context_of(spark, copy))
    unreadable = [entry for entry in plan.partitions if entry.reasons[0].kind is Kind.UNREADABLE]
    assert {entry.day for entry in unreadable} == {datetime.date(2025, 2, 28)}
    assert "its raw day is gone" in str(unreadable[0].reasons[0])


def test_train_sets_on_stale_samples_are_named(spark: SparkSession, copy: Path) -> None:
    opened = Warehouse(str(copy))
    samples = opened.manifest("samples", f"dt={FIRST}")
    assert samples is not None
    for name, digest in (("true", samples.digest), ("old", "another")):
        opened.commit([_trainset(name, {f"samples/dt={FIRST}": digest})])
    plan = find_stale(context_of(spark, copy))
    assert [(found.name, str(found.reasons[0])) for found in plan.trainsets] == [
        ("old", f"samples/dt={FIRST}: another → {samples.digest[:12]}")
    ]
    touch(raw_folder(copy, "impressions", FIRST) / "part-0.parquet")
    plan = find_stale(context_of(spark, copy))
    assert [(found.name, found.reasons[0].kind) for found in plan.trainsets] == [
        ("old", Kind.CHANGED),
        ("true", Kind.WAITS),
    ]


def _trainset(name: str, inputs: Mapping[str, str]) -> PartitionManifest:
    return PartitionManifest(
        table=TRAINSETS,
        partition=f"name={name}",
        generation=1,
        attempt=name,
        files=(),
        rows=0,
        digest=name,
        schema=(),
        inputs=inputs,
        created_at=datetime.datetime.now(datetime.UTC),
    )
