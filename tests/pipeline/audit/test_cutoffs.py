"""The newest event and arrival behind every group: clean, planted in rows, planted in manifests, somebody's Parquet."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import DataError
from pipeline.audit.conf import AuditConf
from pipeline.audit.cutoffs import foreign_cutoffs, own_cutoffs
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.sample_set import SampleSet, foreign, own_days, parse_group
from tests.pipeline.audit.planted import (
    Change,
    alarms,
    copy_of,
    files_of,
    finding,
    ignore,
    plant_in_manifest,
    plant_in_rows,
)
from tests.small_world import SAMPLE_DAYS, context_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONF = AuditConf()
LAST = f"dt={SAMPLE_DAYS[-1]}"
EVE = f"dt={SAMPLE_DAYS[-2]}"


def checked(samples: SampleSet) -> list[Finding]:
    assert samples.own is not None
    return own_cutoffs(samples, samples.own, CONF, ignore)


def test_the_world_raises_no_alarm_and_every_group_has_a_verdict(clean: SampleSet) -> None:
    findings = checked(clean)
    assert alarms(findings) == {}
    named = {found.subject.split(":")[0] for found in findings}
    assert {name for name in named if not name.startswith("state ")} == {group.name for group in clean.groups}
    profiles = finding(findings, "profiles of user")
    assert profiles.verdict is Verdict.PASS
    assert profiles.figures["newest event, days before D"] == profiles.figures["newest arrival, days before D"] == 1
    assert finding(findings, "room state: event time").verdict is Verdict.NOT_CHECKABLE


def first_rows(samples: Path, count: int, having: str) -> list[int]:
    """Impressions of the last day that have events in a sequence."""
    rows = [row for path in files_of(samples, "samples", LAST)[1] for row in pq.read_table(path).to_pylist()]
    return sorted(row["impression_id"] for row in rows if row[having])[:count]


PLANTS: dict[str, tuple[str, str, Change]] = {
    "a profile that is not that of its day": (
        "profiles of user_anchor: every row",
        "watched_age",
        lambda row: {"user_anchor_enters_7d": row["user_anchor_enters_7d"] + 1},
    ),
    "an event within the lag": (
        "sequence watched",
        "watched_age",
        lambda row: {"watched_age": [3, *row["watched_age"][1:]]},
    ),
    "an event past its age": (
        "sequence gifted",
        "gifted_age",
        lambda row: {"gifted_age": [*row["gifted_age"][:-1], 31 * 86_400]},
    ),
}


@pytest.mark.parametrize("plant", PLANTS)
def test_a_leak_in_one_percent_of_the_rows_is_found(
    spark: SparkSession, world: Path, tmp_path: Path, clean: SampleSet, plant: str
) -> None:
    subject, having, change = PLANTS[plant]
    warehouse = copy_of(world, tmp_path / "world")
    planted = plant_in_rows(warehouse, "samples", LAST, first_rows(warehouse, clean.rows // 100, having), change)
    assert 1 <= planted <= clean.rows / 100
    findings = checked(own_days(context_of(spark, warehouse), SAMPLE_DAYS))
    assert alarms(findings) == {subject: Verdict.LEAK}
    assert finding(findings, subject).count == planted


MANIFESTS: dict[str, tuple[str, str, str]] = {
    "profiles of anchor": ("profiles_anchor", f"raw/actions/{LAST}", "raw/actions"),
    "state tiles_actions: arrival": ("tiles_actions", "raw/actions/dt=2025-03-06", "raw/actions"),
    "snapshot of user": ("samples", f"raw/users/{LAST}", "raw/users"),
    "room state: arrival": ("samples", "raw/room_stats/dt=2025-03-06", "raw/room_stats"),
    "impression": ("samples", "raw/impressions/dt=2025-03-09", "raw/impressions"),
}


def test_inputs_past_a_cutoff_are_found_in_manifests(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    """One day of two is planted, each kind in turn in one copy."""
    warehouse = copy_of(world, tmp_path / "world")
    for table, name, _ in MANIFESTS.values():
        plant_in_manifest(warehouse, table, EVE if table == "tiles_actions" else LAST, {name: "planted"})
    findings = checked(own_days(context_of(spark, warehouse), SAMPLE_DAYS))
    assert alarms(findings) == dict.fromkeys(MANIFESTS, Verdict.LEAK)
    for subject, (_, name, _) in MANIFESTS.items():
        assert any(name in example for example in finding(findings, subject).examples)


def test_lineage_that_is_gone_is_never_a_pass(spark: SparkSession, world: Path, tmp_path: Path) -> None:
    warehouse = copy_of(world, tmp_path / "world")
    plant_in_manifest(warehouse, "samples", LAST, {f"profiles_user/{LAST}": "another digest"})
    findings = checked(own_days(context_of(spark, warehouse), SAMPLE_DAYS))
    found = finding(findings, "profiles of user")
    assert found.verdict is Verdict.NOT_CHECKABLE
    assert found.examples == (f"profiles_user/{LAST}",)


# --- Somebody's Parquet -------------------------------------------------------------------------------------

NOON = datetime.datetime(2025, 3, 4, 12, tzinfo=datetime.UTC)
HOUR = datetime.timedelta(hours=1)


def write_foreign(folder: Path, rows: list[dict[str, Any]]) -> str:
    (folder / "region=cn").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), folder / "region=cn" / "part.parquet")
    return str(folder)


def rows_of_theirs() -> list[dict[str, Any]]:
    hours = range(200)
    return [
        {"id": k, "at": NOON + k * HOUR, "label": k % 2, "clicks": k, "age": 20, "seen_until": NOON + (k - 1) * HOUR,
         "born": datetime.date(1990, 1, 1), "paid_at": NOON - HOUR}
        for k in hours
    ]  # fmt: skip


def test_a_group_is_held_against_the_time_column_that_was_named(tmp_path: Path) -> None:
    rows = rows_of_theirs()
    rows[7]["seen_until"], rows[8]["seen_until"] = rows[7]["at"], None
    rows[9]["paid_at"] = rows[9]["at"] + HOUR
    folder = write_foreign(tmp_path, rows)
    groups = [parse_group("counts=clicks@seen_until")]
    findings = foreign_cutoffs(foreign(folder, key="id", time="at", labels=["label"], groups=groups))
    assert finding(findings, "counts").verdict is Verdict.LEAK
    assert finding(findings, "counts").count == 1
    assert finding(findings, "counts").examples[0].startswith("id 7: ")
    assert finding(findings, "paid_at").verdict is Verdict.SUSPECT
    assert finding(findings, "features").verdict is Verdict.NOT_CHECKABLE
    assert set(alarms(findings)) == {"counts", "paid_at"}


def test_a_time_column_of_days_must_lie_on_an_earlier_day(tmp_path: Path) -> None:
    rows = [row | {"day": row["at"].date() - datetime.timedelta(days=1)} for row in rows_of_theirs()]
    groups = [parse_group("counts=clicks,age@day")]
    before = foreign(write_foreign(tmp_path, rows), key="id", time="at", labels=["label"], groups=groups)
    assert alarms(foreign_cutoffs(before)) == {}
    rows[5]["day"] = rows[5]["at"].date()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "region=cn" / "part.parquet")
    same = foreign(str(tmp_path), key="id", time="at", labels=["label"], groups=groups)
    assert alarms(foreign_cutoffs(same)) == {"counts": Verdict.LEAK}


def test_all_missing_columns_are_told_at_once(tmp_path: Path) -> None:
    folder = write_foreign(tmp_path, rows_of_theirs())
    with pytest.raises(DataError) as told:
        foreign(folder, key="row", time="at", labels=["label", "sale"], groups=[parse_group("a=clicks,views@when")])
    assert [problem.column for problem in told.value.problems] == ["row", "sale", "views", "when"]
    with pytest.raises(DataError, match="no Parquet file below it"):
        foreign(str(tmp_path / "nowhere"), key="id", time="at", labels=["label"])


@pytest.mark.parametrize("text", ["clicks", "=clicks", "a=", "a=clicks@"])
def test_a_group_that_cannot_be_read(text: str) -> None:
    with pytest.raises(ValueError, match="must look like"):
        parse_group(text)
