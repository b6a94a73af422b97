"""Stored values against those that SQL over raw rows gives: equal in the world, and every planted row is found."""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from features.schema import KEY_COLUMNS
from pipeline.audit.conf import AuditConf
from pipeline.audit.duck import connect, fetch, make_view
from pipeline.audit.oracle import Oracle
from pipeline.audit.recompute import recompute
from pipeline.audit.report import Verdict
from pipeline.audit.sample_set import SampleSet, own_days
from tests.pipeline.audit.planted import alarms, copy_of, files_of, finding, ignore, plant_in_rows
from tests.small_world import SAMPLE_DAYS, context_of, raw_folder

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CONF = AuditConf()
LAST = f"dt={SAMPLE_DAYS[-1]}"


def test_every_column_of_the_world_is_equal_and_none_is_left_out(clean: SampleSet) -> None:
    assert clean.own is not None
    findings = recompute(clean, clean.own, CONF, ignore)
    assert alarms(findings) == {}
    equal = sum(int(found.figures.get("columns", 0)) for found in findings)
    assert equal == sum(len(group.columns) for group in clean.groups) + 2 * len(clean.labels)
    assert all(found.figures["rows"] == clean.rows for found in findings if found.verdict is Verdict.PASS)
    assert {found.verdict for found in findings} == {Verdict.PASS}


def values_with_day_d(samples: SampleSet, column: str) -> dict[int, Any]:
    """Impression → the value that counted day D too, where it is another one; by another SQL than the audit's."""
    assert samples.own is not None
    with connect() as connection:
        make_view(connection, "samples", samples.urls)
        connection.execute("CREATE TEMP TABLE stored AS SELECT * FROM samples")
        Oracle(connection, samples.own.context).load()
        rows = fetch(connection, f"""
            SELECT s.impression_id, any_value(s.{column}) + count(*) FROM stored s JOIN log l USING (user_id)
            WHERE s.dt = DATE '{SAMPLE_DAYS[-1]}' AND l.e = s.dt AND l.a = s.dt AND l.action = 'enter'
            GROUP BY s.impression_id ORDER BY 1""")  # fmt: skip
    return dict(rows)


def test_a_profile_that_counted_day_d_for_one_percent_is_found_and_explained(
    spark: SparkSession, world: Path, tmp_path: Path, clean: SampleSet
) -> None:
    leaked = values_with_day_d(clean, "user_enters_30d")
    chosen = dict(list(leaked.items())[: clean.rows // 100])
    warehouse = copy_of(world, tmp_path / "world")
    planted = plant_in_rows(
        warehouse, "samples", LAST, chosen, lambda row: {"user_enters_30d": chosen[row["impression_id"]]}
    )
    assert 1 <= planted == len(chosen) <= clean.rows / 100
    samples = own_days(context_of(spark, warehouse), SAMPLE_DAYS)
    assert samples.own is not None
    findings = recompute(samples, samples.own, CONF, ignore)
    assert alarms(findings) == {"user_enters_30d": Verdict.LEAK}
    found = finding(findings, "user_enters_30d")
    assert found.count == planted
    assert f"{planted} of them are the values of a later cutoff" in found.what
    assert str(min(chosen)) in found.examples[0]


def test_every_column_that_is_changed_is_told_by_its_name(
    spark: SparkSession, world: Path, tmp_path: Path, clean: SampleSet
) -> None:
    """One row, every feature and label: no comparison is blind."""
    columns = [name for group in clean.groups for name in group.columns if name not in KEY_COLUMNS]
    columns += [name for label in clean.labels for name in (label.column, label.mask) if name is not None]
    victim = pq.read_table(files_of(world, "samples", LAST)[1][0]).to_pylist()[0]
    warehouse = copy_of(world, tmp_path / "world")
    changed = {name: _other(victim[name]) for name in columns}
    plant_in_rows(warehouse, "samples", LAST, [victim["impression_id"]], lambda _: changed)
    samples = own_days(context_of(spark, warehouse), SAMPLE_DAYS)
    assert samples.own is not None
    found = recompute(samples, samples.own, CONF, ignore)
    assert set(alarms(found)) == set(columns)
    assert {finding.count for finding in found if finding.verdict is Verdict.LEAK} == {1}


def _other(value: Any) -> Any:
    if isinstance(value, list):
        return [*value, value[-1]] if value else None
    if isinstance(value, str):
        return f"{value}?"
    return [1.0] if value is None else value + 1


def test_raw_days_that_were_replaced_since_make_a_difference_suspect(
    spark: SparkSession, world: Path, tmp_path: Path
) -> None:
    warehouse = copy_of(world, tmp_path / "world")
    day = SAMPLE_DAYS[0] - datetime.timedelta(days=1)
    path = raw_folder(warehouse, "actions", day) / "part-0.parquet"
    rows = pq.read_table(path)
    pq.write_table(rows.slice(len(rows) // 2), path)
    samples = own_days(context_of(spark, warehouse), SAMPLE_DAYS)
    assert samples.own is not None
    findings = recompute(samples, samples.own, CONF, ignore)
    assert alarms(findings)["user_enters_7d"] is Verdict.SUSPECT
    assert f"raw/actions/dt={day} was replaced" in finding(findings, "user_enters_7d").what
