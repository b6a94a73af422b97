"""Fitted artefacts against the days they encode: one train set, and a copy per plant."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.manifest import TRAINSET_FILE
from features.schema import load_catalog
from pipeline.audit.conf import AuditConf
from pipeline.audit.fitted import fitted_artefacts
from pipeline.audit.report import Finding, Verdict
from pipeline.audit.sample_set import SampleSet, own_trainset
from pipeline.config import PipelineConf, TrainDays, parse
from pipeline.manifests import Provenance
from pipeline.stages.names import SAMPLES
from pipeline.tables import Warehouse
from pipeline.trainset import TrainSetBuilder
from tests.features.random_samples import days, sample_frame, sample_rows
from tests.pipeline.audit.planted import alarms, finding, ignore
from tests.small_world import context_of

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CATALOG = load_catalog()
CONF = AuditConf()
DAYS = days(6)
PER_DAY = 60
TRAIN_DAYS = TrainDays(fit=tuple(DAYS[:2]), train=tuple(DAYS[2:4]), valid=(DAYS[4],), gate=DAYS[5])
ONE_DAY = datetime.timedelta(days=1)
PIPELINE = parse(
    PipelineConf,
    {
        "leaves": {"trees": 2, "depth": 2, "min_child_weight": 1, "workers": 1},
        "export": {"logical_shards": 2, "target_row_group_rows": 32, "files": 1},
        "tasks": {"min_positives": 5, "min_negatives": 5, "only": ("enter",)},
    },
    "",
)


@pytest.fixture(scope="module")
def built(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fitted") / "warehouse"
    warehouse = Warehouse(str(folder))
    warehouse.write_days(
        sample_frame(spark, CATALOG, sample_rows(CATALOG, DAYS, PER_DAY)), SAMPLES, DAYS, Provenance(inputs={})
    )
    TrainSetBuilder(spark, warehouse, CATALOG, PIPELINE, "test").build("one", TRAIN_DAYS)
    return folder


@pytest.fixture
def planted(built: Path, tmp_path: Path) -> Path:
    """A copy to plant in: the train set's folder, in a warehouse of its own."""
    shutil.copytree(built, tmp_path / "warehouse")
    return next((tmp_path / "warehouse" / "trainsets" / "data").iterdir())


def opened(spark: SparkSession, warehouse: Path) -> SampleSet:
    return own_trainset(context_of(spark, warehouse), "one")


def checked(spark: SparkSession, root: Path) -> list[Finding]:
    own = opened(spark, root.parents[2]).own
    assert own is not None
    return fitted_artefacts(own, CONF, ignore)


def rewrite(root: Path, change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads((root / TRAINSET_FILE).read_text())
    change(content)
    (root / TRAINSET_FILE).write_text(json.dumps(content))


def test_an_honest_train_set_passes_in_every_part(spark: SparkSession, built: Path) -> None:
    findings = checked(spark, next((built / "trainsets" / "data").iterdir()))
    assert {found.verdict for found in findings} == {Verdict.PASS}
    subjects = {found.subject for found in findings}
    assert subjects >= {"days", "booster", "normaliser", "vocabulary user", "vocabulary category"}
    assert subjects >= {"ids of the train split", "ids of the valid split", "ids of the gate split"}


def test_an_id_admitted_a_day_too_early_is_named(spark: SparkSession, planted: Path) -> None:
    """It concerns the rows of one key on one day: less than 1 % of the rows."""
    path = planted / "vocabularies" / "user.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    late = [row for row in rows if row["admitted_on"] > DAYS[0] + ONE_DAY]
    victim = late[0]
    victim["admitted_on"] -= ONE_DAY
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    findings = checked(spark, planted)
    assert alarms(findings) == {"vocabulary user": Verdict.LEAK}
    assert finding(findings, "vocabulary user").examples[0].startswith(f"{victim['key']}: ")


def test_an_id_that_no_row_has_earned_is_named(spark: SparkSession, planted: Path) -> None:
    path = planted / "vocabularies" / "category.parquet"
    table = pq.read_table(path)
    rows = [*table.to_pylist(), {"key": "zz", "id": len(table) + 2, "admitted_on": DAYS[5] + ONE_DAY}]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
    found = finding(checked(spark, planted), "vocabulary category")
    assert found.verdict is Verdict.LEAK
    assert any("outside" in example for example in found.examples)


def test_a_normaliser_that_has_seen_one_row_more_is_found(spark: SparkSession, planted: Path) -> None:
    """One row of the gate day among those of the fit days: less than 1 %."""
    rows = 2 * PER_DAY

    def see_one_more(content: dict[str, Any]) -> None:
        dense = content["dense"][0]
        dense["mean"] = (dense["mean"] * rows + dense["mean"] + dense["std"]) / (rows + 1)

    rewrite(planted, see_one_more)
    findings = checked(spark, planted)
    assert alarms(findings) == {"normaliser": Verdict.LEAK}
    assert finding(findings, "normaliser").count == 1


def test_a_booster_that_has_seen_a_train_day_is_found(spark: SparkSession, planted: Path) -> None:
    rewrite(planted, lambda content: content["leaves"]["fit_days"].append(str(DAYS[2])))
    assert alarms(checked(spark, planted))["booster"] is Verdict.LEAK
    rewrite(planted, lambda content: content["leaves"]["fit_days"].pop())
    (planted / "booster.ubj").write_bytes((planted / "booster.ubj").read_bytes() + b" ")
    assert alarms(checked(spark, planted)) == {"booster": Verdict.LEAK}


def test_a_gate_day_that_was_seen_is_found(spark: SparkSession, planted: Path) -> None:
    rewrite(planted, lambda content: content.update(seen_until=str(DAYS[5])))
    found = finding(checked(spark, planted), "days")
    assert found.verdict is Verdict.LEAK
    assert f"gate day {DAYS[5]} is not after {DAYS[5]}" in found.what


def test_an_encoded_row_with_an_id_of_a_later_day_is_found(spark: SparkSession, planted: Path) -> None:
    path = planted / "vocabularies" / "anchor.parquet"
    table = pq.read_table(path)
    latest = max(table.to_pylist(), key=lambda row: row["id"])
    (file,) = (planted / "train").rglob("*.parquet")
    encoded = pq.read_table(file)
    rows = encoded.to_pylist()
    rows[0]["c__anchor_id"] = latest["id"]
    pq.write_table(pa.Table.from_pylist(rows, schema=encoded.schema), file)
    kept = pa.Table.from_pylist([*table.to_pylist()[:-1], latest | {"admitted_on": DAYS[4]}], schema=table.schema)
    pq.write_table(kept, path)
    found = finding(checked(spark, planted), "ids of the train split")
    assert found.verdict is Verdict.LEAK
    assert any(example.startswith("c__anchor_id: ") for example in found.examples)


def test_samples_without_a_train_set_are_not_checkable(clean: SampleSet) -> None:
    assert clean.own is not None
    (found,) = fitted_artefacts(clean.own, CONF, ignore)
    assert found.verdict is Verdict.NOT_CHECKABLE
    assert "--trainset" in found.what
